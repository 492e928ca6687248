//! `guildhall import posts`: everything arrives once, whatever happens in between.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2e::guildhall;
use serde_json::Value;
use tempfile::TempDir;

const ARTICLES: usize = 120;

/// A blog of Zola's kind, with old addresses, teams and one file that is no article.
fn blog() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for number in 1..=ARTICLES {
        let (month, day) = (number % 12 + 1, number % 28 + 1);
        let path = format!("2019/{month:02}/{day:02}/article-{number}");
        let text = format!(
            "+++\npath = \"{path}\"\ntitle = \"Article {number}\"\nauthors = [\"Writer {number}\", \"러스트 팀\"]\n\
             aliases = [\"{path}.html\", \"releases/{number}\"]\n\n[extra]\nteam = \"Team {}\"\n+++\n\nWord{number} 길드홀 *text*.\n",
            number % 5
        );
        fs::write(directory.path().join(format!("article-{number}.md")), text).expect("a file");
    }
    directory
}

async fn import(guildhall: &e2e::Guildhall, blog: &Path) -> (bool, String) {
    let output = guildhall.command(&["import", "posts", blog.to_str().expect("a path")]).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

async fn all_posts(guildhall: &e2e::Guildhall) -> Vec<Value> {
    let mut posts = Vec::new();
    let mut page = String::new();
    loop {
        let path = format!("/api/v1/posts?pageSize=100&pageToken={page}");
        let listed = guildhall.get(&path).send().await.expect_status(200).json();
        posts.extend(listed["posts"].as_array().expect("posts").iter().cloned());
        match listed["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut page),
            _ => return posts,
        }
    }
}

#[tokio::test]
async fn articles_arrive_with_titles_bylines_dates_categories_and_old_addresses_and_only_once() {
    let guildhall = guildhall!();
    let blog = blog();
    let (done, said) = import(&guildhall, blog.path()).await;
    assert!(done && said.contains(&format!("{ARTICLES} imported, 0 already there, 0 refused")), "{said}");

    let posts = all_posts(&guildhall).await;
    assert_eq!(posts.len(), ARTICLES);
    let post = posts.iter().find(|post| post["title"] == "Article 7").expect("it is there");
    assert_eq!(post["byline"], "Writer 7, 러스트 팀");
    assert_eq!(post["publishTime"], "2019-08-08T00:00:00Z");
    assert_eq!(post["state"], "PUBLISHED");
    let category = format!("/api/v1/categories/{}", post["categoryId"].as_str().expect("a category"));
    assert_eq!(guildhall.get(&category).send().await.expect_status(200).json()["name"], "Team 2");
    for old in ["2019/08/08/article-7", "2019/08/08/article-7.html", "releases/7"] {
        let answer = guildhall.get(&format!("/api/v1/posts:lookUp?path={old}")).send().await.expect_status(301);
        let location = format!("/api/v1/posts/{}", post["id"].as_str().expect("an id"));
        assert_eq!(answer.header("location"), Some(location.as_str()));
    }
    let found = guildhall.get("/api/v1/posts:search?q=word7").send().await.expect_status(200).json();
    assert_eq!(found["results"][0]["post"]["id"], post["id"]);

    let (done, said) = import(&guildhall, blog.path()).await;
    assert!(done && said.contains(&format!("0 imported, {ARTICLES} already there")), "{said}");
    assert_eq!(all_posts(&guildhall).await.len(), ARTICLES);

    fs::write(blog.path().join("broken.md"), "no front matter").expect("a file");
    let (done, said) = import(&guildhall, blog.path()).await;
    assert!(!done && said.contains("refused broken.md: it does not begin with front matter"), "{said}");
}

#[tokio::test]
async fn a_kill_in_the_middle_and_a_second_run_end_with_every_article_once() {
    let mut guildhall = guildhall!();
    let blog = blog();
    let mut first = guildhall.program();
    first.args(["import", "posts"]).arg(blog.path()).arg("--data-dir").arg(guildhall.data());
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    e2e::eventually(Duration::from_secs(30), "some articles are there", async || {
        (!all_posts(&guildhall).await.is_empty()).then_some(())
    })
    .await;
    guildhall.kill().await;
    first.start_kill().ok();
    first.wait().await.expect("the import ends");

    guildhall.restart().await;
    let (done, said) = import(&guildhall, blog.path()).await;
    assert!(done, "{said}");
    assert_eq!(all_posts(&guildhall).await.len(), ARTICLES);
}
