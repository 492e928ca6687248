//! Search: how text becomes the tokens of the index, and a question the phrases that are looked for in it.
//!
//! Words are indexed in lower case (NFKC). Korean, Chinese and Japanese write words together, with endings that no list of word
//! forms covers, so a run of their letters is indexed as overlapping pairs and, at its end, the last letter alone:
//! `러스트` is `러스 스트 트`. Whatever stands inside a run is then found as a phrase of pairs, exactly, and a single
//! letter as the beginning of a token.

use std::collections::HashMap;
use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// Characters of a word that count; what differs later is the same word to the search.
const MAX_WORD: usize = 64;

/// Tokens of one phrase. Neighbouring chunks share as many, so that each phrase is whole in one of them.
const MAX_PHRASE: usize = 32;

/// Pieces of one text that are indexed: more than a million bytes of any language become. A text that says the same over and over
/// would become thousands, and keep all other writers waiting; what stands behind this many is not found.
const MAX_CHUNKS: usize = 256;

/// A unit of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Letters and digits alone.
    pub text: String,
    /// Where it stands in the source, in bytes.
    pub place: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A letter of a script that is written without spaces between words, or with endings glued to them.
    Joined,
    /// A letter or digit of any other script.
    Word,
    /// Belongs to the letter before it.
    Mark,
    Gap,
}

impl Class {
    fn of(c: char) -> Self {
        match u32::from(c) {
            // Hangul: Jamo, their extensions, syllables. Han, Kana, Bopomofo with their extensions.
            0x1100..=0x11FF
            | 0x3005..=0x3007
            | 0x3041..=0x3098
            | 0x309B..=0x30FA
            | 0x30FC..=0x318F
            | 0x31A0..=0x31BF
            | 0x31F0..=0x31FF
            | 0x3400..=0x4DBF
            | 0x4E00..=0x9FFF
            | 0xA960..=0xA97F
            | 0xAC00..=0xD7FF
            | 0xF900..=0xFAFF
            | 0x20000..=0x3FFFF => Self::Joined,
            _ if is_combining_mark(c) => Self::Mark,
            _ if c.is_alphanumeric() => Self::Word,
            _ => Self::Gap,
        }
    }
}

/// The tokens of a text, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut run: Vec<(char, Range<usize>)> = Vec::new();
    let mut class = Class::Gap;
    for (start, cluster) in text.grapheme_indices(true) {
        let place = start..start + cluster.len();
        for c in cluster.nfkc().flat_map(char::to_lowercase).nfkc() {
            let next = Class::of(c);
            if next == Class::Mark && class != Class::Gap {
                run.push((c, place.clone()));
                continue;
            }
            if next != class {
                end_run(&mut tokens, class, &run);
                run.clear();
                class = if next == Class::Mark { Class::Gap } else { next };
            }
            if class != Class::Gap {
                run.push((c, place.clone()));
            }
        }
    }
    end_run(&mut tokens, class, &run);
    tokens
}

fn end_run(tokens: &mut Vec<Token>, class: Class, run: &[(char, Range<usize>)]) {
    let token = |letters: &[(char, Range<usize>)]| {
        let place = letters[0].1.start..letters[letters.len() - 1].1.end;
        Token { text: letters.iter().take(MAX_WORD).map(|(c, _)| *c).collect(), place }
    };
    match class {
        _ if run.is_empty() => {}
        Class::Joined => {
            tokens.extend(run.windows(2).map(token));
            tokens.push(token(&run[run.len() - 1..]));
        }
        _ => tokens.push(token(run)),
    }
}

/// Cuts a text's tokens into overlapping pieces that PostgreSQL indexes without loss: it keeps no position above 16,383, no more
/// than 255 positions of one token, and no tsvector above 1 MB.
pub fn chunks(tokens: &[Token]) -> Vec<&[Token]> {
    const MAX_TOKENS: usize = 8_000;
    const MAX_REPEATS: u16 = 250;
    const MAX_BYTES: usize = 250_000;

    let mut chunks = Vec::new();
    let mut start = 0;
    loop {
        let mut repeats: HashMap<&str, u16> = HashMap::new();
        let mut bytes = 0;
        let length = tokens[start..].iter().take(MAX_TOKENS).take_while(|token| {
            let count = repeats.entry(&token.text).or_default();
            *count += 1;
            bytes += token.text.len();
            *count <= MAX_REPEATS && bytes <= MAX_BYTES
        });
        let end = start + length.count();
        chunks.push(&tokens[start..end]);
        if end == tokens.len() || chunks.len() == MAX_CHUNKS {
            return chunks;
        }
        start = end - MAX_PHRASE;
    }
}

/// Tokens that have to stand together, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// At least one.
    pub tokens: Vec<String>,
    /// Whether the last may go on: the letter that it is may be the first of a pair.
    pub prefix: bool,
}

/// What somebody looks for: every phrase has to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Each once. None where the question has no letter and no digit: nothing is found then.
    pub phrases: Vec<Phrase>,
}

impl Query {
    /// Reads a question: words apart by spaces, and phrases in double quotes. An open quote reaches to the end.
    pub fn parse(question: &str) -> Self {
        let mut phrases: Vec<Phrase> = Vec::new();
        for (at, part) in question.split(['"', '“', '”']).enumerate() {
            let terms: Vec<&str> = if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() };
            for phrase in terms.into_iter().flat_map(Phrase::parse) {
                if !phrases.contains(&phrase) {
                    phrases.push(phrase);
                }
            }
        }
        Self { phrases }
    }
}

impl Phrase {
    /// The phrase that finds `text`; several where it is very long, none where it has neither letter nor digit.
    fn parse(text: &str) -> Vec<Self> {
        let mut tokens = tokens(text);
        let mut prefix = false;
        if let [before @ .., last] = tokens.as_slice()
            && last.text.chars().next().is_some_and(|c| Class::of(c) == Class::Joined)
        {
            // The run may go on in the text that is looked for, so its last letter alone may not be demanded.
            let in_pair = before
                .last()
                .is_some_and(|pair| pair.place.end == last.place.end && pair.place.start < last.place.start);
            if in_pair {
                tokens.pop();
            } else {
                prefix = true;
            }
        }
        let tokens: Vec<String> = tokens.into_iter().map(|token| token.text).collect();
        let mut phrases = Vec::new();
        let mut start = 0;
        while start < tokens.len() {
            let end = tokens.len().min(start + MAX_PHRASE);
            phrases.push(Self { tokens: tokens[start..end].to_vec(), prefix: prefix && end == tokens.len() });
            start = if end == tokens.len() { end } else { end - 1 };
        }
        phrases
    }

    fn matches(&self, tokens: &[Token]) -> bool {
        let (last, before) = self.tokens.split_last().expect("a phrase has a token");
        before.iter().zip(tokens).all(|(wanted, token)| *wanted == token.text)
            && tokens
                .get(before.len())
                .is_some_and(|token| if self.prefix { token.text.starts_with(last) } else { token.text == *last })
    }

    /// Where the phrase stands whose first token is `tokens[0]`.
    fn place(&self, tokens: &[Token], text: &str) -> Range<usize> {
        let last = &tokens[self.tokens.len() - 1].place;
        let end = if self.prefix {
            text[last.clone()].graphemes(true).next().map_or(last.end, |letter| last.start + letter.len())
        } else {
            last.end
        };
        tokens[0].place.start..end
    }
}

/// Characters before the best hit and from it on that a snippet shows.
const SNIPPET: (usize, usize) = (60, 180);

/// Hits that are looked at for a snippet.
const MAX_HITS: usize = 1_000;

/// The text around the best hit as HTML, escaped, hits in `<mark>`; the text's beginning where nothing is found in it.
pub fn snippet(text: &str, query: &Query) -> String {
    let tokens = tokens(text);
    let mut hits: Vec<(Range<usize>, usize)> = (0..tokens.len())
        .flat_map(|at| query.phrases.iter().enumerate().map(move |(phrase, wanted)| (at, phrase, wanted)))
        .filter(|(at, _, wanted)| wanted.matches(&tokens[*at..]))
        .map(|(at, phrase, wanted)| (wanted.place(&tokens[at..], text), phrase))
        .take(MAX_HITS)
        .collect();
    hits.sort_unstable_by_key(|(place, _)| (place.start, place.end));
    let window = window(text, best(&hits, query.phrases.len()));
    let shown = &text[window.clone()];
    let mut html = String::from(if window.start > 0 { "…" } else { "" });
    let mut at = window.start;
    for (place, _) in hits.iter().filter(|(place, _)| place.start >= window.start && place.end <= window.end) {
        if place.end <= at {
            continue;
        }
        let start = place.start.max(at);
        escape(&text[at..start], &mut html);
        html.push_str("<mark>");
        escape(&text[start..place.end], &mut html);
        html.push_str("</mark>");
        at = place.end;
    }
    escape(&text[at..window.start + shown.len()], &mut html);
    if window.end < text.len() {
        html.push('…');
    }
    html
}

/// Where the hit starts that has the most different phrases, then the most hits, within a snippet's reach.
fn best(hits: &[(Range<usize>, usize)], phrases: usize) -> usize {
    let reach =
        |from: usize| hits[from..].iter().take_while(move |(place, _)| place.end <= hits[from].0.start + SNIPPET.1);
    let score = |from: usize| {
        let mut found = vec![false; phrases];
        reach(from).for_each(|(_, phrase)| found[*phrase] = true);
        (found.into_iter().filter(|found| *found).count(), reach(from).count())
    };
    // The first of the best: `max_by_key` would give the last.
    let best = (0..hits.len()).rev().max_by_key(|from| score(*from));
    best.map_or(0, |from| hits[from].0.start)
}

/// The part of the text to show for a hit at `hit`, cut between words where one ends nearby.
fn window(text: &str, hit: usize) -> Range<usize> {
    let (before, after) = SNIPPET;
    let start = text[..hit].char_indices().rev().nth(before).map_or(0, |(at, _)| at);
    let end = text[hit..].char_indices().nth(after).map_or(text.len(), |(at, _)| hit + at);
    let start = match text[start..hit].find(char::is_whitespace) {
        Some(space) if start > 0 && space < before / 2 => {
            start + space + text[start + space..].chars().next().map_or(0, char::len_utf8)
        }
        _ => start,
    };
    let end = match text[hit..end].rfind(char::is_whitespace) {
        Some(space) if end < text.len() && hit + space + after / 2 > end => hit + space,
        _ => end,
    };
    start..end
}

/// Escapes for HTML; white space becomes single spaces.
fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if c.is_whitespace() => {
                if !html.ends_with(' ') {
                    html.push(' ');
                }
            }
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    /// Whether the index would find the question in the text: each phrase, in one of the chunks.
    fn finds(text: &str, question: &str) -> bool {
        let tokens = tokens(text);
        let chunks = chunks(&tokens);
        let query = Query::parse(question);
        let found =
            |phrase: &Phrase| chunks.iter().any(|chunk| (0..chunk.len()).any(|at| phrase.matches(&chunk[at..])));
        !query.phrases.is_empty() && query.phrases.iter().all(found)
    }

    #[test]
    fn words_and_pairs_of_letters_are_tokens() {
        assert_eq!(texts("Rust 1.94는 빠르다!"), ["rust", "1", "94", "는", "빠르", "르다", "다"]);
        assert_eq!(texts("ＲＵＳＴ ﬁne Straße"), ["rust", "fine", "straße"]);
        assert_eq!(texts("日本語です"), ["日本", "本語", "語で", "です", "す"]);
        assert_eq!(texts("हिन्दी"), ["हिन्दी"]);
    }

    #[test]
    fn decomposed_hangul_is_the_same_as_composed() {
        let decomposed: String = "한글 검색".nfd().collect();
        assert_eq!(texts(&decomposed), texts("한글 검색"));
    }

    #[test]
    fn questions_find_what_stands_there_and_nothing_else() {
        let text = "러스트로 웹 서버를 만들었다. Rust2024와 함께 \"큰 일\"을 했다. 북한 글자. don't";
        for found in [
            "러스트",
            "스트로",
            "러스트로",
            "웹",
            "만들",
            "었다",
            "rust2024",
            "rust2024와",
            "큰",
            "\"큰 일\"",
            "한 글",
            "서버 러스트",
            "\"웹 서버\"",
            "DON'T",
        ] {
            assert!(finds(text, found), "{found}");
        }
        for missing in ["러트", "로웹", "스트서버", "rust", "\"일 큰\"", "\"서버 웹\"", "러스트 파이썬", "글한", "!!"]
        {
            assert!(!finds(text, missing), "{missing}");
        }
    }

    #[test]
    fn a_phrase_across_the_edge_of_two_chunks_is_found() {
        let words: Vec<String> = (0..20_000).map(|number| format!("w{number}")).collect();
        let text = words.join(" ");
        assert!(chunks(&tokens(&text)).len() > 2);
        for at in (0..19_980).step_by(997).chain(7_960..8_010) {
            let question = format!("\"{}\"", words[at..at + 20].join(" "));
            assert!(finds(&text, &question), "{at}");
        }
    }

    #[test]
    fn no_chunk_is_more_than_postgres_can_index() {
        for text in ["a ".repeat(20_000), "가".repeat(20_000), format!("{} ", "x".repeat(300)).repeat(3_000)] {
            let tokens = tokens(&text);
            for chunk in chunks(&tokens) {
                let mut repeats: HashMap<&str, usize> = HashMap::new();
                for token in chunk {
                    *repeats.entry(&token.text).or_default() += 1;
                }
                assert!(chunk.len() <= 8_000 && repeats.values().all(|count| *count <= 255));
            }
        }
    }

    #[test]
    fn a_text_that_repeats_itself_becomes_few_chunks_and_any_other_is_indexed_whole() {
        assert_eq!(chunks(&tokens(&"a ".repeat(500_000))).len(), MAX_CHUNKS);
        let sentence =
            |number: usize| format!("number {number} of the house walks in night and day, {} times over. ", number * 7);
        let text: String = (0..20_000).map(sentence).collect();
        assert!(text.len() > 1_000_000, "{}", text.len());
        assert!(finds(&text, "\"number 19999 of the house\""));
    }

    #[test]
    fn a_snippet_shows_the_best_hit_escaped_and_marked() {
        let text = format!("{} 여기 <b>검색</b> 결과가 있다. {}", "앞 문장. ".repeat(50), "뒤 문장. ".repeat(50));
        let html = snippet(&text, &Query::parse("검색 결과"));
        assert!(html.contains("&lt;b&gt;<mark>검색</mark>&lt;/b&gt; <mark>결과</mark>가 있다."), "{html}");
        assert!(html.starts_with('…') && html.ends_with('…'), "{html}");
        assert_eq!(snippet("짧은 글", &Query::parse("없음")), "짧은 글");
        assert_eq!(snippet("한글", &Query::parse("한")), "<mark>한</mark>글");
        assert_eq!(snippet("a & b", &Query::parse("b")), "a &amp; <mark>b</mark>");
    }

    proptest! {
        #[test]
        fn every_part_of_a_korean_text_is_found(text in "[가-힣]{2,30}( [가-힣]{1,10}){0,5}", start in any::<prop::sample::Index>(), length in 2_usize..8) {
            let letters: Vec<char> = text.chars().collect();
            let from = start.index(letters.len());
            let part: String = letters[from..].iter().take(length).collect();
            prop_assume!(part.trim() == part && !part.is_empty());
            let question = format!("\"{part}\"");
            prop_assert!(finds(&text, &question), "{} in {}", question, text);
        }

        #[test]
        fn what_is_found_stands_there(text in "[가-나]{1,12}( [가-나]{1,4}){0,3}", part in "[가-나]{1,4}") {
            prop_assert_eq!(finds(&text, &part), text.contains(&part));
        }

        #[test]
        fn a_snippet_is_the_text_with_marks(text in any::<String>(), question in any::<String>()) {
            let html = snippet(&text, &Query::parse(&question));
            let bare = html.replace("<mark>", "").replace("</mark>", "");
            prop_assert!(!bare.contains('<') && !bare.contains('>'), "{}", html);
        }
    }
}
