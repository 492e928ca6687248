//! Posts are searched.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use contracts::content::v1::search_posts_response::Result as Found;
use contracts::content::v1::{
    CreatePostRequest, ImportPostsRequest, Post, SearchPostsRequest, SearchPostsResponse, UnpublishPostRequest,
    UpdatePostRequest,
};
use status::Reason;
use tonic::Request;

use crate::on_both;
use crate::world::{World, assert_refused};

/// Sixty-one posts in Korean: `title|text`.
const KOREAN: &str = include_str!("search/korean.txt");

async fn ask(world: &World, request: SearchPostsRequest) -> SearchPostsResponse {
    world.posts.clone().search_posts(Request::new(request)).await.unwrap().into_inner()
}

async fn search(world: &World, q: &str) -> Vec<Found> {
    ask(world, SearchPostsRequest { q: q.to_owned(), page_size: 100, ..SearchPostsRequest::default() }).await.results
}

async fn titles(world: &World, q: &str) -> BTreeSet<String> {
    search(world, q).await.into_iter().map(|found| found.post.unwrap().title).collect()
}

/// A document of more than 30,000 tokens with words at its start, in its middle and at its end that stand nowhere else.
fn long_document() -> String {
    let mut text = String::from("두꺼비나루에서 시작한다.\n\n");
    for number in 0..2_600 {
        if number == 1_300 {
            text.push_str("여기가 반딧불이골짜기 어귀다.\n\n");
        }
        let _ =
            write!(text, "문단 {number}: 나루를 건너면 다음 마을이 나오고, 그 마을을 지나면 또 하나의 고개가 나온다. ");
    }
    text.push_str("\n\n끝에는 청어구이골목 하나가 있다.");
    text
}

async fn fill(world: &World) -> Vec<(String, String)> {
    let long = ("긴 여정".to_owned(), long_document());
    let short = KOREAN.lines().map(|line| line.split_once('|').expect("a title and a text"));
    let posts: Vec<_> = short.map(|(title, text)| (title.to_owned(), text.to_owned())).chain([long]).collect();
    let requests: Vec<_> = posts
        .iter()
        .enumerate()
        .map(|(at, (title, text))| ImportPostsRequest {
            source_id: at.to_string(),
            title: title.clone(),
            markdown: text.clone(),
            publish_time: Some(ids::Clock::now(world.clock.as_ref()).into()),
            ..ImportPostsRequest::default()
        })
        .collect();
    let answer = world
        .posts
        .clone()
        .import_posts(world.ask(&world.admin(), tokio_stream::iter(requests)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(usize::try_from(answer.imported).unwrap(), posts.len(), "{:?}", answer.refused);
    posts
}

/// Every fifth stretch of two to four syllables inside a word of the posts.
fn questions(posts: &[(String, String)]) -> BTreeSet<String> {
    let mut questions = BTreeSet::new();
    for (title, text) in posts.iter().take(KOREAN.lines().count()) {
        let words = title.split_whitespace().chain(text.split_whitespace());
        for word in words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric())) {
            let letters: Vec<char> = word.chars().collect();
            for length in 2..=letters.len().min(4) {
                questions.extend(letters.windows(length).map(|part| part.iter().collect::<String>()));
            }
        }
    }
    questions.into_iter().step_by(5).collect()
}

on_both! {
    async fn every_stretch_of_a_korean_word_is_found_and_nothing_else(world: World) {
        let posts = fill(&world).await;
        let mut hits = 0;
        for question in questions(&posts) {
            let expected: BTreeSet<String> =
                posts.iter().filter(|(title, text)| title.contains(&question) || text.contains(&question)).map(|(title, _)| title.clone()).collect();
            assert_eq!(titles(&world, &question).await, expected, "{question}");
            hits += expected.len();
        }
        assert!(hits > 300, "{hits}");

        let only_the_long_one = BTreeSet::from(["긴 여정".to_owned()]);
        for needle in [
            "두꺼비나루", "꺼비", "비나루에서", "반딧불이골짜기", "딧불", "불이골", "골짜기 어귀", "\"반딧불이골짜기 어귀\"", "청어구이골목", "어구이",
            "이골목", "두꺼비나루 청어구이골목", "\"문단 2599\"", "꺼비 딧불이 이골목",
        ] {
            assert_eq!(titles(&world, needle).await, only_the_long_one, "{needle}");
        }
        for nothing in ["두꺼나루", "\"어귀 반딧불이골짜기\"", "비두", "골목청어", "\"문단 2600\""] {
            assert!(titles(&world, nothing).await.is_empty(), "{nothing}");
        }
        for needle in ["반딧불이", "청어구이"] {
            let snippet = search(&world, needle).await.remove(0).snippet;
            assert!(snippet.contains(&format!("<mark>{needle}</mark>")), "{snippet}");
        }
        // One syllable.
        let expected = posts.iter().filter(|(title, text)| title.contains('별') || text.contains('별')).count();
        assert_eq!(titles(&world, "별").await.len(), expected);
    }

    async fn all_words_must_be_found_and_phrases_stand_together(world: World) {
        let author = world.member("A");
        world.published(&author, "Borrow checker", "Ownership & <b>lifetimes</b> in Rust 2024, don't panic.").await;
        world.published(&author, "Rust", "The checker of the borrow department").await;
        assert_eq!(search(&world, "borrow CHECKER").await.len(), 2);
        assert_eq!(search(&world, "\"borrow checker\"").await.len(), 1);
        assert_eq!(search(&world, "“borrow checker”").await.len(), 1);
        assert_eq!(search(&world, "borrow lifetimes").await.len(), 1);
        assert_eq!(search(&world, "borrow python").await.len(), 0);
        assert_eq!(search(&world, "don't").await.len(), 1);
        assert_eq!(search(&world, "ｒｕｓｔ").await.len(), 2);
        for syntax in ["\"", "\"\"", "* OR", "NEAR(a b)", "a:b", "!", "'; DROP TABLE posts; --", "body : x", "\\", "&|<->", "(", "-x", "^a"] {
            search(&world, syntax).await;
        }
        let snippet = search(&world, "lifetimes").await.remove(0).snippet;
        assert_eq!(snippet, "Ownership &amp; <mark>lifetimes</mark> in Rust 2024, don&#39;t panic.");
    }

    async fn the_title_counts_more_and_more_hits_count_more(world: World) {
        let author = world.member("A");
        let filler = "something else entirely about nothing in particular ".repeat(8);
        world.published(&author, "once", &format!("walrus {filler}")).await;
        world.published(&author, "thrice", &format!("walrus walrus walrus {filler}")).await;
        world.published(&author, "The walrus", &filler).await;
        let order: Vec<_> = search(&world, "walrus").await.into_iter().map(|found| found.post.unwrap().title).collect();
        assert_eq!(order, ["The walrus", "thrice", "once"]);
    }

    async fn only_what_is_published_now_is_found_as_it_is_now(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        world.draft(&author, "Walrus", "walrus").await;
        assert!(search(&world, "walrus").await.is_empty());
        let post = world.published(&author, "Walrus", "seal").await;
        assert_eq!(search(&world, "walrus seal").await.len(), 1);
        let change = Post { title: "Otter".to_owned(), ..Post::default() };
        let update = |change: Post| UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: None };
        posts.update_post(world.ask(&author, update(change))).await.unwrap();
        assert_eq!((search(&world, "walrus").await.len(), search(&world, "otter seal").await.len()), (0, 1));
        posts.update_post(world.ask(&author, update(Post { markdown: "orca".to_owned(), ..Post::default() }))).await.unwrap();
        assert_eq!((search(&world, "seal").await.len(), search(&world, "otter orca").await.len()), (0, 1));
        let unpublish = UnpublishPostRequest { post_id: post.id.clone(), ..UnpublishPostRequest::default() };
        posts.unpublish_post(world.ask(&author, unpublish)).await.unwrap();
        assert!(search(&world, "otter").await.is_empty());
    }

    async fn results_come_in_pages_that_a_new_post_does_not_move(world: World) {
        let author = world.member("A");
        for number in 0..5 {
            world.published(&author, &format!("walrus {number}"), "").await;
        }
        let request = SearchPostsRequest { q: "walrus".to_owned(), page_size: 2, ..SearchPostsRequest::default() };
        let mut page = ask(&world, request.clone()).await;
        world.clock.advance(Duration::from_secs(1));
        world.published(&author, "walrus walrus", "walrus").await;
        let mut found: Vec<String> = Vec::new();
        loop {
            found.extend(page.results.into_iter().map(|found| found.post.unwrap().title));
            if page.next_page_token.is_empty() {
                break;
            }
            page = ask(&world, SearchPostsRequest { page_token: page.next_page_token, ..request.clone() }).await;
        }
        found.sort();
        assert_eq!(found, ["walrus 0", "walrus 1", "walrus 2", "walrus 3", "walrus 4"]);

        let first = ask(&world, request.clone()).await;
        let foreign = SearchPostsRequest { q: "otter".to_owned(), page_token: first.next_page_token, ..request };
        assert_refused(world.posts.clone().search_posts(Request::new(foreign)).await, Reason::PageTokenInvalid);
    }

    async fn a_language_is_looked_for_with_its_regions(world: World) {
        let author = world.member("A");
        for language in ["ko", "ko-KR", "kok", ""] {
            let request = CreatePostRequest { title: "walrus".to_owned(), language: language.to_owned(), ..CreatePostRequest::default() };
            let post = world.posts.clone().create_post(world.ask(&author, request)).await.unwrap().into_inner();
            world.publish(&author, &post).await;
        }
        let of = async |language: &str| {
            let request = SearchPostsRequest { q: "walrus".to_owned(), language: language.to_owned(), ..SearchPostsRequest::default() };
            ask(&world, request).await.results.len()
        };
        assert_eq!((of("ko").await, of("KO-kr").await, of("").await, of("en").await), (2, 1, 4, 0));
    }
}
