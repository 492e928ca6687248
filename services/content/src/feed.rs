//! Feeds and the sitemap: what readers and search engines fetch.

use std::iter;

use atom_syndication as atom;
use ids::{PostId, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use rss::extension::Extension;
use rss::extension::dublincore::DublinCoreExtension;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::slug::Slug;

/// Entries of a feed.
pub const ENTRIES: i64 = 50;

/// Pages of a sitemap, the most that sitemaps.org allows.
pub const PAGES: i64 = 50_000;

/// The most bytes of HTML in a feed as XML writes it, and of a sitemap: with the rest of the document it fits into a message of 4 MiB.
const MAX_BYTES: usize = 3_500_000;

/// What stays as it is in the last part of an address (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The site that feeds tell of and lead to.
#[derive(Debug, Clone)]
pub struct Site {
    url: String,
    title: String,
    post_path: String,
}

/// Why there is no such site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the setting site_url has to be an http or https address without a slash at its end")]
    Url,
    #[error("the setting post_path has to begin with a slash and to contain {{id}} or {{slug}}")]
    PostPath,
}

/// Where a post is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The post's id.
    pub post: PostId,
    /// Its present slug.
    pub slug: Slug,
    /// When it last changed.
    pub update_time: Timestamp,
}

/// An entry of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where the post is.
    pub page: Page,
    /// One line.
    pub title: String,
    /// Who is named as the author; empty while that is not known.
    pub author: String,
    /// A BCP 47 tag, or empty.
    pub language: String,
    /// When it was published.
    pub publish_time: Timestamp,
    /// The names of its tags.
    pub tags: Vec<String>,
    /// The whole text, where there is room for it.
    pub html: Option<String>,
}

impl Page {
    /// Names the post for ever, wherever it is (RFC 9562).
    fn urn(&self) -> String {
        format!("urn:uuid:{}", self.post)
    }
}

impl Site {
    /// A site whose posts are at `url` followed by `post_path`, in which `{id}` and `{slug}` stand for the post's.
    pub fn new(url: String, title: String, post_path: String) -> Result<Self, Error> {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or(Error::Url)?;
        let is_address = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && !"\"<>\\^`".contains(c));
        if host.is_empty()
            || host.starts_with('/')
            || host.ends_with('/')
            || host.contains(['?', '#', '{', '}'])
            || !is_address(host)
        {
            return Err(Error::Url);
        }
        let has_place = post_path.contains("{id}") || post_path.contains("{slug}");
        if !has_place || !post_path.starts_with('/') || !is_address(&post_path) {
            return Err(Error::PostPath);
        }
        Ok(Self { url, title, post_path })
    }

    /// The absolute address of a post.
    fn link(&self, page: &Page) -> String {
        let slug = utf8_percent_encode(page.slug.as_str(), ESCAPED).to_string();
        self.url.clone() + &self.post_path.replace("{id}", &page.post.to_string()).replace("{slug}", &slug)
    }

    fn author<'a>(&'a self, item: &'a Item) -> &'a str {
        if item.author.is_empty() { &self.title } else { &item.author }
    }
}

/// An Atom feed (RFC 4287) of these posts.
pub fn atom(site: &Site, items: &[Item]) -> String {
    let address = format!("{}/feeds/posts.atom", site.url);
    // What is at a post's address depends on the setting `post_path`: its link names no type.
    let link = |rel: &str, href: String, mime: Option<&str>| atom::Link {
        rel: rel.to_owned(),
        href,
        mime_type: mime.map(str::to_owned),
        ..atom::Link::default()
    };
    let entries = iter::zip(items, contents(items)).map(|(item, html)| {
        let href = site.link(&item.page);
        let language = Some(&item.language).filter(|language| !language.is_empty());
        let content = html.map(|html| atom::Content {
            base: Some(href.clone()),
            lang: language.cloned(),
            value: Some(html.to_owned()),
            content_type: Some("html".to_owned()),
            ..atom::Content::default()
        });
        atom::Entry {
            id: item.page.urn(),
            title: atom::Text { lang: language.cloned(), ..atom::Text::plain(item.title.clone()) },
            updated: rfc3339(item.page.update_time),
            published: Some(rfc3339(item.publish_time)),
            authors: vec![atom::Person { name: site.author(item).to_owned(), ..atom::Person::default() }],
            categories: item
                .tags
                .iter()
                .map(|tag| atom::Category { term: tag.clone(), ..atom::Category::default() })
                .collect(),
            links: vec![link("alternate", href, None)],
            content,
            ..atom::Entry::default()
        }
    });
    let feed = atom::Feed {
        id: address.clone(),
        title: atom::Text::plain(site.title.clone()),
        updated: rfc3339(updated(items)),
        links: vec![
            link("self", address, Some("application/atom+xml")),
            link("alternate", site.url.clone(), Some("text/html")),
        ],
        entries: entries.collect(),
        ..atom::Feed::default()
    };
    clean(feed.to_string())
}

/// An RSS 2.0 feed of these posts.
pub fn rss(site: &Site, items: &[Item]) -> String {
    // Where the feed itself is: RSS has no word for it, so that feeds borrow Atom's.
    let attributes =
        [("rel", "self"), ("type", "application/rss+xml"), ("href", &format!("{}/feeds/posts.rss", site.url))];
    let own = Extension {
        name: "atom:link".to_owned(),
        attrs: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Extension::default()
    };
    let items_of_channel = iter::zip(items, contents(items)).map(|(item, html)| rss::Item {
        title: Some(item.title.clone()),
        link: Some(site.link(&item.page)),
        guid: Some(rss::Guid { value: item.page.urn(), permalink: false }),
        pub_date: rfc2822(item.publish_time),
        categories: item.tags.iter().map(|tag| rss::Category { name: tag.clone(), domain: None }).collect(),
        // RSS wants an e-mail address of an `author`; who wrote it goes here.
        dublin_core_ext: Some(DublinCoreExtension {
            creators: vec![site.author(item).to_owned()],
            ..DublinCoreExtension::default()
        }),
        content: html.map(str::to_owned),
        ..rss::Item::default()
    });
    let channel = rss::Channel {
        title: site.title.clone(),
        link: site.url.clone(),
        description: format!("The newest posts of {}", site.title),
        last_build_date: rfc2822(updated(items)),
        extensions: [("atom".to_owned(), [("link".to_owned(), vec![own])].into())].into(),
        namespaces: [("atom".to_owned(), "http://www.w3.org/2005/Atom".to_owned())].into(),
        items: items_of_channel.collect(),
        ..rss::Channel::default()
    };
    clean(channel.to_string())
}

/// A sitemap (sitemaps.org 0.9) of these posts, or of as many as fit into a message.
pub fn sitemap(site: &Site, pages: &[Page]) -> String {
    let mut writer = Writer::new(Vec::new());
    write_sitemap(&mut writer, site, pages).expect("writing to a Vec does not fail");
    clean(String::from_utf8(writer.into_inner()).expect("what was written as text is text"))
}

fn write_sitemap(writer: &mut Writer<Vec<u8>>, site: &Site, pages: &[Page]) -> std::io::Result<()> {
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let set = BytesStart::new("urlset").with_attributes([("xmlns", "http://www.sitemaps.org/schemas/sitemap/0.9")]);
    writer.write_event(Event::Start(set))?;
    for page in pages {
        if writer.get_ref().len() > MAX_BYTES {
            break;
        }
        writer.create_element("url").write_inner_content(|writer| {
            writer.create_element("loc").write_text_content(BytesText::new(&site.link(page)))?;
            let time = Timestamp::from_seconds(page.update_time.seconds()).to_string();
            writer.create_element("lastmod").write_text_content(BytesText::new(&time))?;
            Ok(())
        })?;
    }
    writer.write_event(Event::End(BytesEnd::new("urlset")))
}

/// The HTML of each entry, where there is room for it.
fn contents(items: &[Item]) -> impl Iterator<Item = Option<&str>> {
    let mut room = MAX_BYTES;
    items.iter().map(move |item| {
        let html = item.html.as_deref()?;
        room = room.checked_sub(escaped_len(html))?;
        Some(html)
    })
}

/// Bytes of a text in XML, where the longest escape is `&quot;`.
fn escaped_len(text: &str) -> usize {
    text.len() + 5 * text.bytes().filter(|byte| b"<>&\"'".contains(byte)).count()
}

/// When the newest change was. Nothing has changed yet in a feed without entries.
fn updated(items: &[Item]) -> Timestamp {
    items.iter().map(|item| item.page.update_time).max().unwrap_or(Timestamp::EPOCH)
}

fn rfc3339(time: Timestamp) -> atom::FixedDateTime {
    time.to_string().parse().expect("a timestamp is written as RFC 3339 says")
}

/// `None` for a time that RFC 2822 cannot write: before 1900.
fn rfc2822(time: Timestamp) -> Option<String> {
    OffsetDateTime::from(time).format(&Rfc2822).ok()
}

/// Drops the characters that XML 1.0 forbids even as references. Whatever wrote the document, its markup has none of them.
fn clean(mut xml: String) -> String {
    xml.retain(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..));
    xml
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_xml::Reader;

    use super::*;

    fn site() -> Site {
        Site::new("https://example.org".to_owned(), "A & B".to_owned(), "/posts/{slug}".to_owned()).unwrap()
    }

    fn item(number: usize, title: &str) -> Item {
        Item {
            page: Page {
                post: format!("00000000-0000-7000-8000-{number:012}").parse().unwrap(),
                slug: Slug::of_title(title, "post"),
                update_time: Timestamp::from_seconds(1_700_000_100),
            },
            title: title.to_owned(),
            author: "지수".to_owned(),
            language: "ko".to_owned(),
            publish_time: Timestamp::from_seconds(1_700_000_000),
            tags: vec!["Rust <3".to_owned()],
            html: Some(format!("<p>{title}</p>")),
        }
    }

    /// The document's texts by their element, decoded, as somebody else's parser reads them.
    fn texts(xml: &str) -> Result<Vec<(String, String)>, quick_xml::Error> {
        let mut reader = Reader::from_str(xml);
        reader.config_mut().check_end_names = true;
        let mut texts: Vec<(String, String)> = Vec::new();
        let mut open: Vec<String> = Vec::new();
        loop {
            let mut add = |text: &str| {
                if let Some((_, value)) = texts.last_mut() {
                    value.push_str(text);
                }
            };
            match reader.read_event()? {
                Event::Start(start) => {
                    let name = String::from_utf8_lossy(start.name().as_ref().as_ref()).into_owned();
                    texts.push((name.clone(), String::new()));
                    open.push(name);
                }
                Event::End(_) => {
                    open.pop();
                    texts.push((open.last().cloned().unwrap_or_default(), String::new()));
                }
                Event::Text(text) => add(&text),
                Event::CData(text) => add(&text),
                Event::GeneralRef(reference) => add(&match reference.resolve_char_ref()? {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&reference).unwrap_or("?").to_owned(),
                }),
                Event::Eof => {
                    assert!(open.is_empty(), "{open:?} are not closed");
                    return Ok(texts);
                }
                _ => {}
            }
        }
    }

    fn text_of<'a>(texts: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        texts
            .iter()
            .filter(|(element, text)| element == name && !text.trim().is_empty())
            .map(|(_, text)| text.as_str())
            .collect()
    }

    #[test]
    fn a_site_has_an_address_and_a_place_for_posts() {
        let site = |url: &str, path: &str| Site::new(url.to_owned(), "Site".to_owned(), path.to_owned()).map(drop);
        assert_eq!(site("http://localhost:8080", "/api/v1/posts/{id}"), Ok(()));
        assert_eq!(site("https://example.org/blog", "/{slug}.html"), Ok(()));
        for url in [
            "",
            "example.org",
            "ftp://example.org",
            "https://",
            "https:///x",
            "https://example.org/",
            "https://a b",
            "https://x?y",
            "http://x{id}",
        ] {
            assert_eq!(site(url, "/{id}"), Err(Error::Url), "{url}");
        }
        for path in ["", "/posts", "{id}", "/{id} "] {
            assert_eq!(site("https://example.org", path), Err(Error::PostPath), "{path}");
        }
    }

    #[test]
    fn links_are_absolute_and_percent_encoded() {
        let page = item(1, "러스트 1.0").page;
        assert_eq!(site().link(&page), "https://example.org/posts/%EB%9F%AC%EC%8A%A4%ED%8A%B8-1-0");
        let by_id =
            Site::new("http://localhost:8080".to_owned(), String::new(), "/api/v1/posts/{id}".to_owned()).unwrap();
        assert_eq!(by_id.link(&page), "http://localhost:8080/api/v1/posts/00000000-0000-7000-8000-000000000001");
    }

    #[test]
    fn an_atom_entry_says_what_rfc_4287_asks_for() {
        let xml = atom(&site(), &[item(1, "A <b>"), Item { author: String::new(), ..item(2, "C") }]);
        let feed: atom::Feed = xml.parse().unwrap();
        assert_eq!(feed.title.value, "A & B");
        assert_eq!(feed.id, "https://example.org/feeds/posts.atom");
        assert_eq!(feed.updated.to_rfc3339(), "2023-11-14T22:15:00+00:00");
        let entry = &feed.entries[0];
        assert_eq!(entry.id, "urn:uuid:00000000-0000-7000-8000-000000000001");
        assert_eq!(entry.title.value, "A <b>");
        assert_eq!(entry.authors[0].name, "지수");
        assert_eq!(entry.published.unwrap().to_rfc3339(), "2023-11-14T22:13:20+00:00");
        assert_eq!(entry.updated.to_rfc3339(), "2023-11-14T22:15:00+00:00");
        assert_eq!(
            (entry.links[0].href.as_str(), entry.links[0].mime_type.as_deref()),
            ("https://example.org/posts/a-b", None)
        );
        assert_eq!(entry.categories[0].term, "Rust <3");
        let content = entry.content.as_ref().unwrap();
        assert_eq!((content.content_type.as_deref(), content.value.as_deref()), (Some("html"), Some("<p>A <b></p>")));
        assert_eq!(feed.entries[1].authors[0].name, "A & B");
    }

    #[test]
    fn an_rss_item_says_the_same() {
        let channel: rss::Channel = rss(&site(), &[item(1, "A <b>")]).parse().unwrap();
        assert_eq!((channel.title(), channel.link()), ("A & B", "https://example.org"));
        assert_eq!(channel.extensions()["atom"]["link"][0].attrs["href"], "https://example.org/feeds/posts.rss");
        let item = &channel.items[0];
        assert_eq!(item.title(), Some("A <b>"));
        assert_eq!(item.link(), Some("https://example.org/posts/a-b"));
        assert_eq!(item.pub_date(), Some("Tue, 14 Nov 2023 22:13:20 +0000"));
        assert_eq!(item.guid().unwrap().value(), "urn:uuid:00000000-0000-7000-8000-000000000001");
        assert!(!item.guid().unwrap().is_permalink());
        assert_eq!(item.dublin_core_ext().unwrap().creators(), ["지수"]);
        assert_eq!(item.content(), Some("<p>A <b></p>"));
    }

    #[test]
    fn a_sitemap_lists_every_page_that_fits() {
        let pages: Vec<Page> = (0..50_000).map(|number| item(number, "글").page).collect();
        let xml = sitemap(&site(), &pages);
        assert!(xml.len() <= MAX_BYTES + 1_000, "{}", xml.len());
        let read = texts(&sitemap(&site(), &pages[..2])).unwrap();
        assert_eq!(text_of(&read, "loc"), ["https://example.org/posts/%EA%B8%80"; 2]);
        assert_eq!(text_of(&read, "lastmod"), ["2023-11-14T22:15:00Z"; 2]);
    }

    #[test]
    fn feeds_of_no_posts_are_feeds() {
        assert_eq!(atom(&site(), &[]).parse::<atom::Feed>().unwrap().entries.len(), 0);
        assert_eq!(rss(&site(), &[]).parse::<rss::Channel>().unwrap().items.len(), 0);
        assert!(texts(&sitemap(&site(), &[])).is_ok());
    }

    #[test]
    fn a_feed_of_long_posts_fits_into_a_message() {
        let long = |number| Item { html: Some("<\"&".repeat(100_000)), ..item(number, "Long") };
        let items: Vec<Item> = (0..50).map(long).collect();
        for xml in [atom(&site(), &items), rss(&site(), &items)] {
            assert!(xml.len() < 4 * 1024 * 1024, "{}", xml.len());
            assert_eq!(text_of(&texts(&xml).unwrap(), "title").len(), 51);
        }
    }

    #[test]
    fn times_before_rfc_2822_are_left_out() {
        let old = Item { publish_time: Timestamp::MIN, ..item(1, "Old") };
        let channel: rss::Channel = rss(&site(), std::slice::from_ref(&old)).parse().unwrap();
        assert_eq!(channel.items[0].pub_date(), None);
        assert!(atom(&site(), &[old]).parse::<atom::Feed>().is_ok());
    }

    /// What XML keeps of a text: no forbidden characters, and line ends as `\n`.
    fn kept(text: &str) -> String {
        clean(text.to_owned()).replace("\r\n", "\n").replace('\r', "\n")
    }

    proptest! {
        #[test]
        fn whatever_people_write_the_documents_can_be_read(
            title in any::<String>(),
            noise in prop::collection::vec(prop_oneof![
                Just("]]>"), Just("<![CDATA["), Just("&"), Just("&#0;"), Just("<!--"), Just("<?x"), Just("\u{0}"), Just("\u{1b}"),
                Just("\u{fffe}"), Just("\u{ffff}"), Just("\""), Just("'"), Just("<title>"), Just("</title>"), Just("a"),
            ], 0..12),
        ) {
            let title = title + &noise.concat();
            let items = [Item { author: title.clone(), tags: vec![title.clone()], html: Some(title.clone()), ..item(1, &title) }];
            for xml in [atom(&site(), &items), rss(&site(), &items)] {
                let read = texts(&xml);
                prop_assert!(read.is_ok(), "{:?} in {}", read, xml);
                let read = read.unwrap();
                let titles = read.iter().filter(|(name, _)| name == "title").nth(1).map(|(_, text)| kept(text));
                prop_assert_eq!(titles, Some(kept(&title)), "{}", xml);
            }
            prop_assert!(texts(&sitemap(&site(), &[items[0].page.clone()])).is_ok());
        }
    }
}
