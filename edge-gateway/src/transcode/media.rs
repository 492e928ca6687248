//! Media types: what a request's body is, and which form of an answer the client takes.
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, CONTENT_TYPE},
};
use status::{Problem, Reason};

pub const JSON: &str = "application/json";
pub const EVENTS: &str = "text/event-stream";
/// The names under which lines of JSON go; the first is the one that is written.
pub const LINES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-lines"];

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// One JSON document per line; a failure is the line `{"error": {…}}`.
    Lines,
    /// Server-sent events: `data: {…}`, and at a failure `event: error` with a problem.
    Events,
    /// A JSON array; a failure is its last element, `{"error": {…}}`.
    Array,
    /// The bytes of `google.api.HttpBody` messages. A failure breaks the transfer off.
    Raw,
}

impl Format {
    /// The media types that ask for this form. Raw bytes name their own.
    pub fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::Json | Self::Array => &[JSON],
            Self::Lines => &LINES,
            Self::Events => &[EVENTS],
            Self::Raw => &[],
        }
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(self.media_types().first().copied().unwrap_or("application/octet-stream"))
    }

    /// The form among `offered` that `Accept` prefers; by quality, then by how exactly it is named, then by their order.
    pub fn negotiate(offered: &[Self], headers: &HeaderMap) -> Result<Self, Problem> {
        let ranges: Vec<_> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            // RFC 9110, section 5.6.1.2: empty elements of a list do not count.
            .filter(|range| !range.trim().is_empty())
            .collect();
        if ranges.is_empty() {
            return Ok(offered[0]);
        }
        let mut best = None;
        for format in offered {
            let rank = format.media_types().iter().filter_map(|name| quality(name, &ranges)).max();
            if rank > best.map(|(rank, _)| rank) {
                best = rank.map(|rank| (rank, *format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            let names: Vec<_> = offered.iter().map(|format| format.media_types()[0]).collect();
            Problem::new(Reason::NotAcceptable).message(format!("This answer can be {}", names.join(", ")))
        })
    }
}

/// How much a media type is wanted: its quality in thousandths, and how exactly the range names it. None if it is not.
fn quality(name: &str, ranges: &[&str]) -> Option<(u16, u8)> {
    let (kind, _) = name.split_once('/')?;
    let matching = ranges.iter().filter_map(|range| {
        let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
        let exactness = match range.trim() {
            "*/*" => 0,
            range if range.eq_ignore_ascii_case(name) => 2,
            range if range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(kind)) => 1,
            _ => return None,
        };
        let weight = parameters
            .split(';')
            .find_map(|parameter| parameter.trim().strip_prefix("q="))
            .map_or(Some(1.0), |q| q.parse::<f32>().ok())?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
        Some((exactness, (weight.clamp(0.0, 1.0) * 1000.0) as u16))
    });
    let (exactness, weight) = matching.max()?;
    (weight > 0).then_some((weight, exactness))
}

/// The essence of `Content-Type`, in lower case; none if the request has none.
pub fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Refuses a body that is not JSON. A body without a type is taken for it.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let structured = |essence: &str| essence.starts_with("application/") && essence.ends_with("+json");
    match (headers.get(CONTENT_TYPE), content_type(headers)) {
        (None, _) => Ok(()),
        (Some(_), Some(essence)) if essence == JSON || structured(&essence) => Ok(()),
        _ => Err(unsupported(&[JSON])),
    }
}

pub fn unsupported(names: &[&str]) -> Problem {
    Problem::new(Reason::UnsupportedMediaType)
        .message(format!("The body of this request must be {}", names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(offered: &[Format], accept: &[&str]) -> Option<Format> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Format::negotiate(offered, &headers).ok()
    }

    #[test]
    fn quality_decides_then_exactness_then_our_order() {
        let stream = [Format::Lines, Format::Events, Format::Array];
        for (accept, expected) in [
            (&[][..], Some(Format::Lines)),
            (&["*/*"], Some(Format::Lines)),
            (&["", " , "], Some(Format::Lines)),
            (&["text/event-stream"], Some(Format::Events)),
            (&["text/*"], Some(Format::Events)),
            (&["application/json, text/plain, */*"], Some(Format::Array)),
            (&["application/json;q=0.5, application/jsonl"], Some(Format::Lines)),
            (&["application/json;q=0.5", "Text/Event-Stream; q=0.6"], Some(Format::Events)),
            (
                &[
                    "*/*, application/x-ndjson;q=0, application/ndjson;q=0, application/jsonl;q=0, application/json-lines;q=0",
                ],
                Some(Format::Events),
            ),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(Format::Lines)),
            (&["text/html"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=much"], None),
        ] {
            assert_eq!(negotiate(&stream, accept), expected, "{accept:?}");
        }
        assert_eq!(negotiate(&[Format::Json], &["application/*"]), Some(Format::Json));
    }
}
