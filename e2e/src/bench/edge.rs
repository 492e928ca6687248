//! What the edge costs: the same calls through it, over REST and over gRPC, and to content directly, as the edge itself makes them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use contracts::content::v1::feed_service_client::FeedServiceClient;
use contracts::content::v1::post_service_client::PostServiceClient;
use contracts::content::v1::{GetPostRequest, GetSitemapRequest, ListPostsRequest};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::transport::Endpoint;
use xtask::bench::Options;

use super::{Answer, Call, Contest, paces};
use crate::faults::cluster::{CONTENT, Cluster, EDGE, Plan};
use crate::{Site, process};

/// Of one caller in a turn.
const CALLS: u32 = 400;
/// Posts that are there, and words in each.
const POSTS: usize = 100;
const WORDS: usize = 500;
/// Posts of one page.
const PAGE: i32 = 20;

/// What is asked for.
#[derive(Clone, Copy)]
enum Work {
    /// XML that content keeps for some seconds: no database, and no JSON.
    Sitemap,
    Post,
    Posts,
}

pub async fn run(program: &Path, options: &Options) -> Result<()> {
    let mut cluster = Cluster::start(program, Plan::default(), None).await;
    let edge = cluster.edges().swap_remove(0);
    let site = Site::new(&edge);
    import(program, &cluster, &site, &edge).await?;
    let page = site.get("/api/v1/posts?pageSize=1").send().await.expect_status(200).json();
    let id: Arc<str> = page["posts"][0]["id"].as_str().context("there is no post")?.into();

    let (edge_name, content_name) = (cluster.names_of(EDGE).swap_remove(0), cluster.names_of(CONTENT).swap_remove(0));
    let content = cluster.listens(&content_name);
    let identity = cluster.identity(EDGE).await;
    let mut running = |name: &str| cluster.process(name).id().with_context(|| format!("{name} has ended"));
    let processes = vec![("edge", running(&edge_name)?), ("content", running(&content_name)?)];

    let http = reqwest::Client::new();
    let mut contests = Vec::new();
    for (work, name) in
        [(Work::Sitemap, "GetSitemap (kept in memory)"), (Work::Post, "GetPost"), (Work::Posts, "ListPosts (20 posts)")]
    {
        for (callers, calls, pace) in paces(options.calls.unwrap_or(CALLS)) {
            let direct = mesh::connect(&identity, CONTENT.parse()?, content.into());
            let through = Endpoint::from_shared(edge.clone())?.connect_lazy();
            let (own, id_of_direct, id_of_grpc) = (work.rest(&edge, &http, &id), id.clone(), id.clone());
            let contenders: Vec<(&'static str, Call)> = vec![
                ("content directly, gRPC", Arc::new(move || work.grpc(direct.clone(), &id_of_direct))),
                ("through the edge, gRPC", Arc::new(move || work.grpc(through.clone(), &id_of_grpc))),
                ("through the edge, REST", own),
            ];
            contests.push(Contest {
                work: format!("{name}, {pace}"),
                callers,
                calls,
                contenders,
                processes: processes.clone(),
            });
        }
    }
    println!(
        "Processes on PostgreSQL and Redis, {POSTS} posts of {WORDS} words; client, services and databases share the machine. REST is \
         HTTP/1.1 with connections that stay. CPU is that of edge and content alone."
    );
    let compared = super::compare(&contests, options).await;
    cluster.expect_all_running();
    compared
}

/// Posts of a blog, as one moves in.
async fn import(program: &Path, cluster: &Cluster, site: &Site, edge: &str) -> Result<()> {
    let blog = tempfile::tempdir()?;
    for number in 1..=POSTS {
        let text: Vec<String> = (0..WORDS).map(|word| format!("word{}{}", word % 97, ending(word))).collect();
        let post = format!(
            "+++\npath = \"post-{number}\"\ntitle = \"Post {number}\"\ndate = 2024-01-{:02}\n+++\n\n{}\n",
            number % 28 + 1,
            text.concat()
        );
        fs::write(blog.path().join(format!("post-{number}.md")), post)?;
    }
    let admin = cluster.admin();
    let login = site.log_in(&admin.email, &admin.password).await;
    let token = login["accessToken"].as_str().context("a login gives a token")?;
    let mut import = process::command(program);
    import.args(["import", "posts"]).arg(blog.path()).args(["--server", edge]).env("GUILDHALL_TOKEN", token);
    let output = import.output().await?;
    ensure!(output.status.success(), "the posts were not imported: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Paragraphs with a link and something to stress in each.
fn ending(word: usize) -> &'static str {
    match word % 50 {
        49 => ".\n\n",
        20 => " [*linked*](https://example.org/) ",
        _ => " ",
    }
}

impl Work {
    fn grpc<T>(self, transport: T, id: &str) -> Answer
    where
        T: GrpcService<Body, Future: Send> + Send + 'static,
        T::Error: Into<StdError>,
        T::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
    {
        let id = id.to_owned();
        Box::pin(async move {
            match self {
                Self::Sitemap => {
                    FeedServiceClient::new(transport).get_sitemap(GetSitemapRequest::default()).await?;
                }
                Self::Post => {
                    let request = GetPostRequest { post_id: id };
                    PostServiceClient::new(transport).get_post(request).await?;
                }
                Self::Posts => {
                    let request = ListPostsRequest { page_size: PAGE, ..ListPostsRequest::default() };
                    PostServiceClient::new(transport).list_posts(request).await?;
                }
            }
            Ok(())
        })
    }

    fn rest(self, edge: &str, http: &reqwest::Client, id: &str) -> Call {
        let path = match self {
            Self::Sitemap => "/sitemap.xml".to_owned(),
            Self::Post => format!("/api/v1/posts/{id}"),
            Self::Posts => format!("/api/v1/posts?pageSize={PAGE}"),
        };
        let (url, http) = (format!("{edge}{path}"), http.clone());
        Arc::new(move || {
            let request = http.get(&url);
            Box::pin(async move {
                request.send().await?.error_for_status()?.bytes().await?;
                Ok(())
            })
        })
    }
}
