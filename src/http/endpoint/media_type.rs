//! Content negotiation: the media type of a response, by the `Accept` header.

use axum::http::{HeaderMap, HeaderValue, header};
use headers_accept::Accept;
use mediatype::names::{APPLICATION, JSON, Q};
use mediatype::{MediaType as Type, MediaTypeList, Name, ReadParams};

/// The media type of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/graphql-response+json`. The status is 200 only if the request was executed, except for
    /// `PERSISTED_QUERY_NOT_SUPPORTED`.
    GraphqlResponse,
    /// `application/json`, for older clients, which treat any status other than 200 as a network failure. The response
    /// to an invalid document therefore has the status 200.
    Json,
}

const GRAPHQL_RESPONSE: Name = Name::new_unchecked("graphql-response");

/// JSON comes first, so that `*/*` selects JSON.
static AVAILABLE: [Type; 2] =
    [Type::new(APPLICATION, JSON), Type::from_parts(APPLICATION, GRAPHQL_RESPONSE, Some(JSON), &[])];

/// The number of media ranges that are read. A client without a key could otherwise make the service parse and sort
/// thousands of them.
const MAX_RANGES: usize = 50;

impl MediaType {
    /// Returns the media type that the client prefers: by `q`, then an exact media type before a range such as `*/*`,
    /// then by the order in the header. Returns `None` if the client accepts neither media type, and JSON if the
    /// `Accept` header is missing or has no valid media range.
    pub fn accepted_by(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT).iter();
        let ranges = lines.filter_map(|line| line.to_str().ok()).flat_map(ranges).take(MAX_RANGES);
        let ranges: Vec<_> = ranges.flatten().collect();
        if ranges.is_empty() {
            return Some(Self::Json);
        }
        // The crate prefers a range with more parameters, so it gets the ranges without parameters.
        let Ok(accept) = ranges.join(", ").parse::<Accept>() else { return Some(Self::Json) };
        let accepted = accept.negotiate(&AVAILABLE)?;
        Some(if accepted.subty == JSON { Self::Json } else { Self::GraphqlResponse })
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        })
    }
}

/// Returns the media ranges of a line of the `Accept` header, without parameters other than `q`, so that
/// `application/json; charset=utf-8` accepts JSON. An empty or malformed range is `None`.
fn ranges(line: &str) -> impl Iterator<Item = Option<String>> {
    let without_parameters = |range: Type| {
        let quality: Vec<_> = range.get_param(Q).map(|quality| (Q, quality)).into_iter().collect();
        Type::from_parts(range.ty, range.subty, range.suffix, &quality).to_string()
    };
    MediaTypeList::new(line).map(move |range| range.ok().map(without_parameters))
}

/// Returns true if the body of a request is `application/json`, with any parameters.
pub fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> Option<MediaType> {
        let lines = lines.iter().map(|line| (header::ACCEPT, HeaderValue::from_str(line).expect("visible ASCII")));
        MediaType::accepted_by(&lines.collect())
    }

    #[test]
    fn the_preferred_media_type_is_chosen() {
        use MediaType::{GraphqlResponse, Json};
        for (accept, expected) in [
            // The quality decides first, then the order.
            ("application/json;q=0.5, application/graphql-response+json", Some(GraphqlResponse)),
            ("application/graphql-response+json;q=0.5, application/json", Some(Json)),
            ("application/graphql-response+json;q=0.8, application/json;q=0.9", Some(Json)),
            ("application/graphql-response+json, application/json;q=0.9", Some(GraphqlResponse)),
            ("application/graphql-response+json, application/json", Some(GraphqlResponse)),
            ("application/json, application/graphql-response+json", Some(Json)),
            // A quality of 0 excludes a media type.
            ("application/json;q=0", None),
            ("application/json;q=0, application/graphql-response+json;q=0.001", Some(GraphqlResponse)),
            ("*/*, application/json;q=0", Some(GraphqlResponse)),
            ("*/*;q=0", None),
            // The header may contain ranges of media types.
            ("*/*", Some(Json)),
            ("application/*", Some(Json)),
            ("text/html, */*;q=0.1", Some(Json)),
            ("application/graphql-response+json, */*", Some(GraphqlResponse)),
            ("application/json;q=0.5, */*;q=0.1", Some(Json)),
            // Case, and parameters other than `q`, have no effect.
            ("Application/GraphQL-Response+JSON", Some(GraphqlResponse)),
            ("application/json; charset=utf-8", Some(Json)),
            ("application/json; charset=UTF-8; q=0.5, application/graphql-response+json", Some(GraphqlResponse)),
            ("application/json; charset=utf-8; q=0, */*", Some(GraphqlResponse)),
            ("application/json; odata=verbose", Some(Json)),
            ("application/graphql-response+json, application/json; charset=utf-8", Some(GraphqlResponse)),
            ("application/json, application/graphql-response+json; charset=utf-8", Some(Json)),
            ("application/json;q=0, application/*;v=1", Some(GraphqlResponse)),
            ("application/graphql-response+json; title=\"a, b\", application/json", Some(GraphqlResponse)),
            // Empty and malformed ranges are ignored.
            (", application/graphql-response+json,,text/html", Some(GraphqlResponse)),
            ("json, application/graphql-response+json", Some(GraphqlResponse)),
            (
                "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
                Some(GraphqlResponse),
            ),
            // The client accepts neither media type.
            ("text/html", None),
            ("application/xml, text/*", None),
            // A header without a valid range counts as absent. Old Java runtimes send the last of these headers.
            ("", Some(Json)),
            (" ,", Some(Json)),
            ("json", Some(Json)),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Some(Json)),
        ] {
            assert_eq!(accepted(&[accept]), expected, "{accept}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = ["application/json;q=0.5", "application/graphql-response+json"];
        assert_eq!(accepted(&lines), Some(MediaType::GraphqlResponse));
        assert_eq!(accepted(&[]), Some(MediaType::Json));
    }

    #[test]
    fn ranges_beyond_the_maximum_are_not_read() {
        let after = |ranges: usize| accepted(&[&("x,".repeat(ranges) + "application/graphql-response+json")]);
        assert_eq!(after(MAX_RANGES - 1), Some(MediaType::GraphqlResponse));
        assert_eq!(after(MAX_RANGES), Some(MediaType::Json));
    }
}
