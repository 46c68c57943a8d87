"""Writes emails.tsv: email addresses, valid and invalid, with the result of the email-validator library.

    pip install email-validator==2.4.0
    python emails.py > emails.tsv

Columns, separated by tabs:

    address     as a JSON string
    canonical   the canonical form that the service must return, "-" if it must reject the address
    difference  empty, or the reason why the expected result differs from that of email-validator:
                trimmed      the service removes white space around an address
                special use  email-validator rejects reserved domains such as .test and .local; the service accepts them
                as browsers  the service maps domains by UTS 46, as browsers do: symbols that can be registered are
                             accepted
"""
import itertools
import json
from importlib.metadata import version

import email_validator
from email_validator import EmailNotValidError, validate_email

LOCALS = ["user", "User.Name", "a+b", "o'brien", "x", "1", "a_b-c", "{x}!#$%&*/=?^`|~", "a" * 64, "a" * 65, "", ".a", "a.", "a..b",
          '"a b"', '"a"', "a b", "a\\b", "a,b", "a;b", "a:b", "a(b)", "a<b", "a>b", "a[b", "a]b", "a@b", "us\u00e9r", "\u7528\u6237", "a\u200bb", "a\u0000b", "a\nb"]
DOMAINS = ["example.com", "Example.COM", "sub.example.co.uk", "b\u00fccher.example.com", "B\u00dcCHER.de", "xn--bcher-kva.de", "\u4f8b\u3048.jp",
           "\uff45xample\u3002com", "3m.com", "1.2.com", "a-b.com", "x.y", "example", "localhost", "example..com", ".example.com",
           "example.com.", "-a.com", "a-.com", "exa_mple.com", "exa mple.com", "example.com/path", "exam%70le.com", "127.0.0.1",
           "1.2", "example.123", "[127.0.0.1]", "[IPv6:::1]", "xn--a.com", "a" * 63 + ".com", "a" * 64 + ".com", "example.c", "ex\u200bample.com",
           "example.com(comment)", "\u0661.com", "a.b.c.d.e.f.g.com", "ab--cd.com", "faß.de", "user.test", "user.local", "\u2603.com",
           ".".join(["a" * 60] * 3) + ".com", ".".join(["a" * 60] * 4) + ".com"]
WHOLE = ["", " ", "@", "a@", "@a", "a", "a@b@example.com", "user@example.com\n", "User <user@example.com>", "<user@example.com>",
         "mailto:user@example.com", "user@example.com,b@example.com", "user@exam\u0000ple.com", "user\uff20example.com", "a" * 500,
         "@" * 300, "user@" + "a." * 200 + "com", "user@\u0131stanbul.com", "USER@EXAMPLE.COM", "user@\u05d0\u05d1.com", "user@a\u05d0.com"]


AS_BROWSERS = {"User@\u2603.com": "user@xn--n3h.com"}


def canonical(address):
    """Returns the canonical form that email-validator computes, or None if email-validator rejects the address."""
    try:
        result = validate_email(address, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return None
    return f"{result.local_part.lower()}@{result.ascii_domain}"


def expected(address):
    """Returns the expected canonical form and the intended difference."""
    if address in AS_BROWSERS:
        return AS_BROWSERS[address], "as browsers"
    untrimmed = canonical(address)
    if untrimmed is not None:
        return untrimmed, ""
    trimmed = canonical(address.strip())
    if trimmed is not None:
        return trimmed, "trimmed"
    special_use = email_validator.SPECIAL_USE_DOMAIN_NAMES
    email_validator.SPECIAL_USE_DOMAIN_NAMES = []
    with_reserved_domains = canonical(address)
    email_validator.SPECIAL_USE_DOMAIN_NAMES = special_use
    return (with_reserved_domains, "special use") if with_reserved_domains else ("-", "")


def rows():
    for address in itertools.chain((f"{local}@example.com" for local in LOCALS), (f"User@{domain}" for domain in DOMAINS),
                                   (f"{local}@{domain}" for local in LOCALS[:4] for domain in DOMAINS[:8]), WHOLE):
        yield address, expected(address)


if __name__ == "__main__":
    print(f"# email-validator {version('email-validator')}: address, canonical, difference")
    for address, (form, difference) in dict(rows()).items():
        print(json.dumps(address), form, difference, sep="\t")
