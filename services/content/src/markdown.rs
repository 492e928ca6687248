//! Markdown: CommonMark with GitHub's extensions, rendered to HTML that is safe to show.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use ammonia::Builder;
use comrak::nodes::{AstNode, NodeValue};
use comrak::{Arena, Options};

/// The most bytes that a post may render to: with its source it must fit into one message of 4 MiB.
pub const MAX_HTML: usize = 2_500_000;

/// Deeper nesting of quotes, lists and HTML serves nobody but those who want to exhaust us: parsing HTML takes time in the square
/// of its depth.
const MAX_DEPTH: usize = 100;

/// Bytes that writing the sanitised HTML may look through: html5ever looks through the rest of a text again for each `&` and each
/// character from U+0080 to U+00BF in it. About a second's work.
const MAX_SCANNED: usize = 30_000_000_000;

/// Prefix of ids inside posts, so that they collide with none of the page around them.
const ID_PREFIX: &str = "user-content-";

/// What Markdown becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Sanitised HTML.
    pub html: String,
    /// The text alone, blocks apart by line ends.
    pub plain: String,
}

/// Why a text is not rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("renders to more than {MAX_HTML} bytes of HTML")]
    Length,
    #[error("quotes, lists or HTML are nested more than {MAX_DEPTH} deep")]
    Depth,
    #[error("has too many characters & and from U+0080 to U+00BF for its length")]
    Escapes,
}

/// Renders and sanitises. Work for the CPU: tens of milliseconds per megabyte.
pub fn render(markdown: &str) -> Result<Rendered, Error> {
    let arena = Arena::new();
    let root = comrak::parse_document(&arena, markdown, &OPTIONS);
    let plain = plain(root)?;
    let mut html = String::new();
    comrak::format_html(root, &OPTIONS, &mut html).expect("writing to a String does not fail");
    if html.len() > MAX_HTML {
        return Err(Error::Length);
    }
    if is_deep(&html) {
        return Err(Error::Depth);
    }
    if scanned(&html) > MAX_SCANNED {
        return Err(Error::Escapes);
    }
    let html = SANITISER.clean(&html).to_string();
    if html.len() > MAX_HTML { Err(Error::Length) } else { Ok(Rendered { html, plain }) }
}

static OPTIONS: LazyLock<Options<'static>> = LazyLock::new(|| {
    let mut options = Options::default();
    options.extension.table = true;
    options.extension.strikethrough = true;
    options.extension.autolink = true;
    options.extension.tasklist = true;
    options.extension.footnotes = true;
    // Emphasis beside Korean, Chinese and Japanese letters, which have no spaces around them.
    options.extension.cjk_friendly_emphasis = true;
    // HTML in the source goes on to the sanitiser, which decides.
    options.render.r#unsafe = true;
    options
});

static SANITISER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::default();
    builder
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .link_rel(Some("nofollow ugc noopener"))
        .add_tags(["input"])
        .add_tag_attributes("input", ["checked"])
        // The boxes of task lists: whatever else somebody writes as an input becomes one too.
        .set_tag_attribute_value("input", "type", "checkbox")
        .set_tag_attribute_value("input", "disabled", "")
        .add_tag_attributes("code", ["class"])
        .add_tag_attributes("a", ["id"])
        .add_tag_attributes("li", ["id"])
        .attribute_filter(|_, attribute, value| match attribute {
            "class" => is_code_language(value).then(|| Cow::from(value)),
            "id" => is_footnote(value).then(|| Cow::from(format!("{ID_PREFIX}{value}"))),
            "href" => Some(match value.strip_prefix('#') {
                Some(fragment) if is_footnote(fragment) => Cow::from(format!("#{ID_PREFIX}{fragment}")),
                _ => Cow::from(value),
            }),
            _ => Some(Cow::from(value)),
        });
    builder
});

fn is_code_language(class: &str) -> bool {
    class
        .strip_prefix("language-")
        .is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-#._".contains(c)))
}

/// `fn-1` and `fnref-1-2`, as footnotes are rendered.
fn is_footnote(id: &str) -> bool {
    (id.starts_with("fn-") || id.starts_with("fnref-")) && !id.contains(char::is_whitespace)
}

/// Whether more elements are open at the same time than [`MAX_DEPTH`], of those that stay open until they are closed.
fn is_deep(html: &str) -> bool {
    const CLOSED_BY_THEMSELVES: [&str; 16] =
        ["area", "br", "col", "dd", "dt", "hr", "img", "input", "li", "option", "p", "source", "td", "th", "tr", "wbr"];
    let mut depth = 0_usize;
    for tag in html.split('<').skip(1) {
        let closes = tag.starts_with('/');
        let name = tag.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if name.is_empty() || CLOSED_BY_THEMSELVES.iter().any(|void| name.eq_ignore_ascii_case(void)) {
            continue;
        }
        depth = if closes { depth.saturating_sub(1) } else { depth + 1 };
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// The most bytes that are looked through while this HTML is written again.
fn scanned(html: &str) -> usize {
    let marks = html.bytes().filter(|byte| matches!(byte, b'&' | 0xC2)).count();
    // The search ends at these, so that they cost nothing.
    let harmless: usize = ["&lt;", "&gt;", "&quot;"].map(|escape| html.matches(escape).count()).iter().sum();
    (marks - harmless).saturating_mul(html.len())
}

fn plain<'a>(root: &'a AstNode<'a>) -> Result<String, Error> {
    use comrak::arena_tree::NodeEdge;
    let mut plain = String::new();
    let mut depth = 0_usize;
    for edge in root.traverse() {
        match edge {
            NodeEdge::Start(node) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Error::Depth);
                }
                match &node.data.borrow().value {
                    NodeValue::Text(text) => plain.push_str(text),
                    NodeValue::Code(code) => plain.push_str(&code.literal),
                    NodeValue::CodeBlock(block) => plain.push_str(&block.literal),
                    NodeValue::SoftBreak | NodeValue::LineBreak => plain.push('\n'),
                    _ => {}
                }
            }
            NodeEdge::End(node) => {
                depth -= 1;
                let block = node.data.borrow().value.block();
                if block && !plain.is_empty() && !plain.ends_with('\n') {
                    plain.push('\n');
                }
            }
        }
    }
    plain.truncate(plain.trim_end().len());
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(markdown: &str) -> String {
        render(markdown).unwrap().html
    }

    #[test]
    fn github_extensions_are_rendered() {
        assert!(html("|a|\n|-|\n|b|\n").contains("<td>b</td>"));
        assert!(html("~~gone~~").contains("<del>gone</del>"));
        assert!(html("see https://example.com").contains(r#"href="https://example.com""#));
        let tasks = html("- [x] done\n- [ ] open\n");
        assert_eq!(tasks.matches("checkbox").count(), 2, "{tasks}");
        assert_eq!(tasks.matches("checked").count(), 1, "{tasks}");
        assert!(html("**한글**은").contains("<strong>한글</strong>"));
    }

    #[test]
    fn footnotes_lead_to_their_own_ids() {
        let notes = html("text[^n]\n\n[^n]: the note\n");
        for part in [r##"href="#user-content-fn-n""##, r#"id="user-content-fn-n""#, r#"id="user-content-fnref-n""#] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
    }

    #[test]
    fn links_say_that_they_are_not_ours() {
        assert!(html("[a](https://example.com)").contains(r#"rel="nofollow ugc noopener""#));
    }

    #[test]
    fn classes_are_for_the_languages_of_code_alone() {
        assert!(html("```rust\nfn main() {}\n```").contains(r#"<code class="language-rust">"#));
        assert!(!html(r#"<p class="admin">x</p><code class="admin">y</code>"#).contains("class"));
    }

    #[test]
    fn what_could_run_is_removed() {
        for markdown in [
            "<script>alert(1)</script>",
            "<style>*{display:none}</style>",
            "<img src=x onerror=alert(1)>",
            "[x](javascript:alert(1))",
            "[x](JaVaScRiPt:alert(1))",
            "[x](data:text/html,<script>alert(1)</script>)",
            "<a href=\"jav&#x09;ascript:alert(1)\">x</a>",
            "<svg onload=alert(1)>",
            "<iframe src=https://example.com></iframe>",
            "<p style=\"position:fixed\">x</p>",
            "<form action=/><input type=password name=p></form>",
            "<math><mtext></p><style><img src=x onerror=alert(1)>",
        ] {
            let html = html(markdown).to_lowercase();
            for evil in [
                "<script",
                "<style",
                "onerror=",
                "onload=",
                "href=\"jav",
                "href=\"data:",
                "<iframe",
                "style=",
                "password",
                "<svg",
                "<form",
            ] {
                assert!(!html.contains(evil), "{markdown} gave {html}");
            }
        }
    }

    #[test]
    fn plain_text_keeps_words_and_blocks_apart() {
        let plain =
            render("# 제목\n\nFirst *bold* `code`.\nNext.\n\n- one\n- two\n\n|a|b|\n|-|-|\n|c|d|\n").unwrap().plain;
        assert_eq!(plain, "제목\nFirst bold code.\nNext.\none\ntwo\na\nb\nc\nd");
    }

    #[test]
    fn hostile_text_is_rendered_or_refused_by_the_limit_that_it_exceeds() {
        let cases = [
            (">", Err(Error::Depth)),
            ("[", Ok(())),
            ("*a_", Ok(())),
            ("- ", Ok(())),
            ("<div>", Err(Error::Depth)),
            ("</div>", Ok(())),
            ("<p>", Ok(())),
            ("<li>", Ok(())),
            ("![[]()", Ok(())),
            ("`", Ok(())),
            ("&", Err(Error::Escapes)),
            ("<b><i>", Err(Error::Depth)),
            ("<a>", Err(Error::Depth)),
            ("<b></p>", Err(Error::Depth)),
            ("[^1]:", Ok(())),
            ("|", Ok(())),
            ("<!--", Ok(())),
            ("<x ", Ok(())),
            ("<", Ok(())),
        ];
        for (pattern, expected) in cases {
            assert_eq!(render(&pattern.repeat(100_000 / pattern.len())).map(drop), expected, "{pattern}");
        }
    }

    #[test]
    fn characters_that_are_slow_to_write_are_few_in_a_long_text() {
        for slow in ["&", "&#38;", "<i>&#38;</i>", "«", "\u{a0}"] {
            assert_eq!(render(&slow.repeat(180_000)).map(drop), Err(Error::Escapes), "{slow}");
            assert_eq!(render(&slow.repeat(500)).map(drop), Ok(()), "{slow}");
        }
        assert_eq!(render(&"\"<>".repeat(10_000)).map(drop), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_that_runs_ever_comes_out(parts in prop::collection::vec(prop_oneof![
            Just("<script>"), Just("</script>"), Just("<img src=x "), Just("onerror="), Just("\""), Just("'"), Just(">"), Just("<"),
            Just("javascript:"), Just("[a]("), Just(")"), Just("<a href="), Just("&#106;"), Just("\n\n"), Just("`"), Just("<style>"),
            Just("<!--"), Just("-->"), Just("<math>"), Just("<svg>"), Just("<textarea>"), Just("<noscript>"), Just("<template>"), Just(" "),
        ], 0..24)) {
            let html = html(&parts.concat());
            // The output's tags, parsed again as a browser would.
            let mut builder = Builder::default();
            builder.add_tags(["input"]).add_generic_attributes(["type", "disabled", "checked", "class", "id"]).link_rel(None);
            let mut rest = html.as_str();
            while let Some(at) = rest.find('<') {
                let tag = rest[at..].split_inclusive('>').next().unwrap_or_default().to_lowercase();
                prop_assert!(!tag.starts_with("<script") && !tag.starts_with("<style") && !tag.starts_with("<svg"), "{}", html);
                let attributes: Vec<_> = tag.split('"').step_by(2).collect();
                prop_assert!(!attributes.iter().any(|text| text.contains(" on")), "{}", html);
                prop_assert!(!tag.contains("href=\"javascript:") && !tag.contains("src=\"javascript:"), "{}", html);
                rest = &rest[at + 1..];
            }
        }
    }
}
