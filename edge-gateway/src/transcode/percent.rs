//! Percent-encoding (RFC 3986, section 2.1), strict: an escape that is none, or bytes that are no UTF-8, are an error and not text.
use std::borrow::Cow;

/// What is being decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One path segment: everything is decoded, and `+` stays `+`.
    Segment,
    /// Several path segments: `%2F` stays encoded, so that it can be told from a separator.
    Segments,
    /// A key or a value of a query: `+` is a space.
    Query,
}

/// Decodes `raw`; none if it is malformed.
pub fn decode(raw: &str, part: Part) -> Option<Cow<'_, str>> {
    let plain = |byte: u8| byte != b'%' && (byte != b'+' || part != Part::Query);
    if raw.bytes().all(plain) {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' if part == Part::Query => decoded.push(b' '),
            b'%' => {
                let (escape, tail) = rest.split_first_chunk::<2>()?;
                rest = tail;
                match hex(escape[0])? << 4 | hex(escape[1])? {
                    b'/' if part == Part::Segments => decoded.extend([b'%', escape[0], escape[1]]),
                    byte => decoded.push(byte),
                }
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_several_segments_keep_an_encoded_slash_and_only_a_query_reads_plus_as_space() {
        assert_eq!(decode("a%2Fb+c", Part::Segment).as_deref(), Some("a/b+c"));
        assert_eq!(decode("a%2fb/c%20d+e", Part::Segments).as_deref(), Some("a%2fb/c d+e"));
        assert_eq!(decode("a%2Fb+c%2B", Part::Query).as_deref(), Some("a/b c+"));
    }

    #[test]
    fn malformed_escapes_and_invalid_utf8_are_refused() {
        for raw in ["%", "%2", "%zz", "a%+1", "%ff", "%c3%28", "%ED%A0%80"] {
            assert_eq!(decode(raw, Part::Segment), None, "{raw}");
        }
    }
}
