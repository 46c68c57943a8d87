"""Writes phones.tsv: phone numbers of every country and type, with the result of Google's libphonenumber.

    pip install phonenumbers==9.0.42
    python phones.py > phones.tsv

Columns, separated by tabs:

    spelling    the number as typed
    e164        the E.164 form, "-" if the number is not possible
    line type   "mobile" or "other"
    difference  empty, or the reason why the service rejects the number although libphonenumber accepts it:
                altered   libphonenumber does more than remove a prefix, so the number could be another person's
                unstable  libphonenumber reads its own E.164 form as another number
                too long  more than the 15 digits of E.164
"""
import random
import re
import sys

import phonenumbers
from phonenumbers import PhoneNumberFormat as Format
from phonenumbers import PhoneNumberType as Type
from phonenumbers import ValidationResult

RANDOM = random.Random(20261123)
TYPES = [value for name, value in vars(Type).items() if name.isupper() and name != "UNKNOWN"]
SEPARATORS = ["", "", "", " ", "-", ".", "/", "\u00a0", "\u2011", " ("]
DIGITS = ["0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",
          "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669",
          "\u06f0\u06f1\u06f2\u06f3\u06f4\u06f5\u06f6\u06f7\u06f8\u06f9",
          "\u0966\u0967\u0968\u0969\u096a\u096b\u096c\u096d\u096e\u096f"]

HAND_MADE = """
+15551234567 +14155552671 +12684641234 +18765551234 +17871234567 +16712345678 +1 555 1234 +1555123456 +155512345678
+2250123456789 +2250712345678 +2290195123456 +22995123456 +242061234567 +24106031234 +241062345678
+447797712345 +447700900123 +442079460018 +441534456789 +447911123456 +445612345678 +443031234567
+77710009998 +79123456789 +78001234567 +74951234567 +390612345678 +393123456789 +3906698 +379061234567
+37080012345 +3758011234567 +9940434839 +9944012345 +61412345678 +4930123456 +49301234567890 +4915123456789
+5491123456789 +541123456789 +54 11 15 2345 6789 +521 55 1234 5678 +525512345678 +5511961234567 +551123456789
+85251234567 +6591234567 +8613123456789 +919876543210 +819012345678 +821012345678 +33612345678 +33 (0)6 12 34 56 78
+44 (0)20 7946 0018 +46 (0)70 123 45 67 +80012345678 +870773111632 +881612345678 +882161234567 +979123456789
+99912345678 +2101234567 +0 +00 +1 +12 +123 +49 +493 +4930 +999 +1234567890123456 +12345678901234567
+491234567890123 +4912345678901234 +4312345678901234 +43123456789012345 +2901234 +24721234 +290 +508411234 +6831234
""".split("\n")


def spellings(number):
    country, national = str(number.country_code), phonenumbers.national_significant_number(number)
    yield phonenumbers.format_number(number, Format.E164)
    yield phonenumbers.format_number(number, Format.INTERNATIONAL)
    # The country code, then the national format, which may have a trunk prefix.
    yield f"+{country} {phonenumbers.format_number(number, Format.NATIONAL)}"
    digits = RANDOM.choice(DIGITS)
    spelt = "".join(digits[int(digit)] + RANDOM.choice(SEPARATORS) for digit in country + national)
    yield RANDOM.choice(["+", "\uff0b"]) + spelt


def examples():
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in TYPES:
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                yield number
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS):
        yield phonenumbers.example_number_for_non_geo_entity(code)


def expected(text):
    """Returns the E.164 form, the line type and the intended difference."""
    digits = "".join(phonenumbers.normalize_digits_only(text))
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return "-", "other", ""
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return "-", "other", ""
    e164 = phonenumbers.format_number(number, Format.E164)
    kind = phonenumbers.number_type(number)
    mobile = "mobile" if kind in (Type.MOBILE, Type.FIXED_LINE_OR_MOBILE) else "other"
    code = str(number.country_code)
    national = e164[1 + len(code):]
    if not (digits.startswith(code) and digits[len(code):].endswith(national)):
        return e164, mobile, "altered"
    if phonenumbers.format_number(phonenumbers.parse(e164, None), Format.E164) != e164:
        return e164, mobile, "unstable"
    if len(e164) > 16:
        return e164, mobile, "too long"
    return e164, mobile, ""


def rows():
    seen = set()
    numbers = list(examples())
    texts = [text for number in numbers for text in spellings(number)]
    texts += [text for line in HAND_MADE for text in re.findall(r"\+[^+]+", line)]
    # Example numbers with one digit replaced by a random digit, to test the borders of the number ranges.
    for number in RANDOM.choices(numbers, k=3000):
        text = phonenumbers.format_number(number, Format.E164)
        place = RANDOM.randrange(1, len(text))
        texts.append(text[:place] + str(RANDOM.randrange(10)) + text[place + 1:])
    texts += ["+" + str(RANDOM.randrange(10 ** RANDOM.randrange(5, 17))) for _ in range(3000)]
    for text in texts:
        text = text.strip()
        # The service rejects letters and extensions, which libphonenumber accepts.
        if text in seen or any(char.isalpha() or char in "*#;~," for char in text):
            continue
        seen.add(text)
        yield (text, *expected(text))


if __name__ == "__main__":
    print(f"# libphonenumber {phonenumbers.__version__}: spelling, e164, line type, difference")
    for row in rows():
        sys.stdout.write("\t".join(row) + "\n")
