//! Portfolios and the resumes in them.

use std::time::Duration;

use contracts::auth::v1::{UserReinstated, UserSuspended};
use contracts::content::v1::portfolio_service_client::PortfolioServiceClient;
use contracts::content::v1::resume_entry::Kind;
use contracts::content::v1::{
    CreateResumeEntryRequest, DeleteResumeEntryRequest, GetPortfolioRequest, ListResumeEntriesRequest, Portfolio,
    ResumeEntry, UpdatePortfolioRequest, UpdateResumeEntryRequest,
};
use mesh::Channel;
use prost_types::FieldMask;
use status::Reason;
use tonic::{Request, Response, Status};

use crate::on_both;
use crate::world::{Person, World, assert_refused, eventually, refusal};

fn client(world: &World) -> PortfolioServiceClient<Channel> {
    PortfolioServiceClient::new(world.channel.clone())
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    (!paths.is_empty()).then(|| FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}

async fn get(world: &World, person: &Person) -> Result<Response<Portfolio>, Status> {
    client(world).get_portfolio(Request::new(GetPortfolioRequest { user_id: person.id.to_string() })).await
}

async fn write(
    world: &World,
    person: &Person,
    portfolio: Portfolio,
    paths: &[&str],
) -> Result<Response<Portfolio>, Status> {
    let request =
        UpdatePortfolioRequest { user_id: person.id.to_string(), portfolio: Some(portfolio), update_mask: mask(paths) };
    client(world).update_portfolio(world.ask(person, request)).await
}

fn work(person: &Person, title: &str, start: &str, end: &str) -> CreateResumeEntryRequest {
    CreateResumeEntryRequest {
        user_id: person.id.to_string(),
        kind: Kind::Work.into(),
        title: title.to_owned(),
        start_month: start.to_owned(),
        end_month: end.to_owned(),
        ..CreateResumeEntryRequest::default()
    }
}

async fn add(
    world: &World,
    person: &Person,
    request: CreateResumeEntryRequest,
) -> Result<Response<ResumeEntry>, Status> {
    client(world).create_resume_entry(world.ask(person, request)).await
}

async fn change(
    world: &World,
    person: &Person,
    id: &str,
    entry: ResumeEntry,
    paths: &[&str],
) -> Result<Response<ResumeEntry>, Status> {
    let request = UpdateResumeEntryRequest {
        user_id: person.id.to_string(),
        entry_id: id.to_owned(),
        entry: Some(entry),
        update_mask: mask(paths),
    };
    client(world).update_resume_entry(world.ask(person, request)).await
}

async fn delete(world: &World, person: &Person, id: &str, etag: &str) -> Result<Response<()>, Status> {
    let request =
        DeleteResumeEntryRequest { user_id: person.id.to_string(), entry_id: id.to_owned(), etag: etag.to_owned() };
    client(world).delete_resume_entry(world.ask(person, request)).await
}

/// The titles of a resume, in pages of `size`.
async fn titles(world: &World, person: &Person, size: i32) -> Vec<String> {
    let mut titles = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListResumeEntriesRequest { user_id: person.id.to_string(), page_size: size, page_token };
        let page = client(world).list_resume_entries(Request::new(request)).await.unwrap().into_inner();
        titles.extend(page.entries.into_iter().map(|entry| entry.title));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return titles;
        }
    }
}

on_both! {
    async fn the_first_change_makes_a_portfolio(world: World) {
        let person = world.member("민지");
        assert_refused(get(&world, &person).await, Reason::NotFound);
        let given = Portfolio {
            headline: "Systems, 게임".to_owned(),
            markdown: "# 안녕 <script>alert(1)</script>".to_owned(),
            links: vec!["https://example.org/%EB%AF%BC".to_owned(), "http://example.com".to_owned()],
            ..Portfolio::default()
        };
        let first = write(&world, &person, given.clone(), &[]).await.unwrap().into_inner();
        assert_eq!((&first.headline, &first.links, &first.id), (&given.headline, &given.links, &person.id.to_string()));
        assert!(first.html.contains("<h1>") && !first.html.contains("script"), "{}", first.html);
        assert_eq!(get(&world, &person).await.unwrap().into_inner(), first);

        let second = Portfolio { etag: first.etag.clone(), headline: "New".to_owned(), ..Portfolio::default() };
        let second = write(&world, &person, second, &["headline", "links"]).await.unwrap().into_inner();
        assert_eq!((second.headline.as_str(), second.links.len(), &second.markdown), ("New", 0, &given.markdown));
        assert_eq!(second.create_time, first.create_time);
        let stale = Portfolio { etag: first.etag, ..Portfolio::default() };
        assert_refused(write(&world, &person, stale, &["markdown"]).await, Reason::EtagMismatch);
        assert_eq!(get(&world, &person).await.unwrap().into_inner(), second);
    }

    async fn a_change_that_changes_nothing_writes_nothing(world: World) {
        let person = world.member("A");
        // The first one makes the portfolio, whatever is in it.
        let empty = write(&world, &person, Portfolio::default(), &[]).await.unwrap().into_inner();
        assert_eq!(get(&world, &person).await.unwrap().into_inner(), empty);
        let given = Portfolio { headline: "Me".to_owned(), markdown: "*x*".to_owned(), links: vec!["https://example.org".to_owned()], ..empty };
        let before = write(&world, &person, given.clone(), &[]).await.unwrap().into_inner();
        let entry = add(&world, &person, work(&person, "t", "2020-06", "")).await.unwrap().into_inner();
        world.clock.advance(Duration::from_secs(1));
        let same = Portfolio { etag: before.etag.clone(), ..given };
        for (given, paths) in [(same, &["*"][..]), (Portfolio::default(), &[])] {
            assert_eq!(write(&world, &person, given, paths).await.unwrap().into_inner(), before);
        }
        for (given, paths) in [(entry.clone(), &["*"][..]), (ResumeEntry::default(), &["organisation", "end_month"]), (ResumeEntry::default(), &[])] {
            assert_eq!(change(&world, &person, &entry.id, given, paths).await.unwrap().into_inner(), entry);
        }
        assert_eq!(get(&world, &person).await.unwrap().into_inner(), before);
    }

    async fn names_are_one_line_with_something_to_see(world: World) {
        let person = world.member("A");
        let entry = add(&world, &person, work(&person, "t", "2020-06", "")).await.unwrap().into_inner();
        for name in [" ", "\u{200b}", "a\nb", "\u{202e}a"].map(str::to_owned) {
            let creates = [
                (CreateResumeEntryRequest { title: name.clone(), ..work(&person, "t", "2020-06", "") }, "title"),
                (CreateResumeEntryRequest { organisation: name.clone(), ..work(&person, "t", "2020-06", "") }, "organisation"),
            ];
            for (request, field) in creates {
                assert_eq!(refusal(add(&world, &person, request).await), (Reason::InvalidFields, vec![field.to_owned()]), "{name:?}");
            }
            let updates = [
                (ResumeEntry { title: name.clone(), ..ResumeEntry::default() }, "entry.title"),
                (ResumeEntry { organisation: name.clone(), ..ResumeEntry::default() }, "entry.organisation"),
            ];
            for (given, field) in updates {
                let outcome = change(&world, &person, &entry.id, given, &[]).await;
                assert_eq!(refusal(outcome), (Reason::InvalidFields, vec![field.to_owned()]), "{name:?}");
            }
            let outcome = write(&world, &person, Portfolio { headline: name, ..Portfolio::default() }, &[]).await;
            assert_eq!(refusal(outcome), (Reason::InvalidFields, vec!["portfolio.headline".to_owned()]));
        }
    }

    async fn links_lead_to_web_pages(world: World) {
        let person = world.member("A");
        for link in ["javascript:alert(1)", "example.org", "ftp://example.org", "https://", "https:///x", "/relative"] {
            let given = Portfolio { links: vec!["https://example.org".to_owned(), link.to_owned()], ..Portfolio::default() };
            let (reason, fields) = refusal(write(&world, &person, given, &[]).await);
            assert_eq!((reason, fields[0].as_str()), (Reason::InvalidFields, "portfolio.links[1]"), "{link}");
        }
        let outcome = write(&world, &person, Portfolio::default(), &["html"]).await;
        assert_eq!(refusal(outcome), (Reason::InvalidFields, vec!["updateMask".to_owned()]));
        assert_refused(get(&world, &person).await, Reason::NotFound);
    }

    async fn a_portfolio_is_changed_by_its_owner_alone(world: World) {
        let person = world.member("A");
        let entry = add(&world, &person, work(&person, "Mine", "2020-01", "")).await.unwrap().into_inner();
        let user_id = person.id.to_string();
        for other in [world.member("B"), world.admin()] {
            let update = UpdatePortfolioRequest { user_id: user_id.clone(), portfolio: Some(Portfolio::default()), update_mask: None };
            assert_refused(client(&world).update_portfolio(world.ask(&other, update)).await, Reason::ResourceForbidden);
            assert_refused(add(&world, &other, work(&person, "Theirs", "2020-01", "")).await, Reason::ResourceForbidden);
            let update = UpdateResumeEntryRequest {
                user_id: user_id.clone(),
                entry_id: entry.id.clone(),
                entry: Some(ResumeEntry::default()),
                update_mask: None,
            };
            assert_refused(client(&world).update_resume_entry(world.ask(&other, update)).await, Reason::ResourceForbidden);
            let delete = DeleteResumeEntryRequest { user_id: user_id.clone(), entry_id: entry.id.clone(), etag: String::new() };
            assert_refused(client(&world).delete_resume_entry(world.ask(&other, delete)).await, Reason::ResourceForbidden);
            // Under their own name they do not reach it either.
            assert_refused(change(&world, &other, &entry.id, ResumeEntry::default(), &[]).await, Reason::NotFound);
            assert_refused(super::delete(&world, &other, &entry.id, "").await, Reason::NotFound);
        }
        assert_eq!(titles(&world, &person, 0).await, ["Mine"]);
    }

    async fn entries_are_listed_by_their_start_the_newest_first(world: World) {
        let person = world.member("A");
        for (title, start) in [("b", "2019-05"), ("d", "2021-01"), ("a", "2018-12"), ("c", "2019-05"), ("e", "2021-02")] {
            add(&world, &person, work(&person, title, start, "")).await.unwrap();
            world.clock.advance(Duration::from_secs(1));
        }
        for size in [1, 2, 5, 0] {
            assert_eq!(titles(&world, &person, size).await, ["e", "d", "c", "b", "a"]);
        }
        assert!(titles(&world, &world.member("B"), 0).await.is_empty());
        // A page token serves the resume that it came from.
        let page = ListResumeEntriesRequest { user_id: person.id.to_string(), page_size: 1, ..ListResumeEntriesRequest::default() };
        let token = client(&world).list_resume_entries(Request::new(page.clone())).await.unwrap().into_inner().next_page_token;
        let other = ListResumeEntriesRequest { user_id: world.member("B").id.to_string(), page_token: token, ..page };
        assert_refused(client(&world).list_resume_entries(Request::new(other)).await, Reason::PageTokenInvalid);
    }

    async fn pages_of_long_entries_fit_into_a_message(world: World) {
        let person = world.member("A");
        let long = "가".repeat(6_600);
        let count = 70;
        for number in 0..count {
            let request = CreateResumeEntryRequest { markdown: long.clone(), ..work(&person, &number.to_string(), "2020-01", "") };
            add(&world, &person, request).await.unwrap();
        }
        let user_id = person.id.to_string();
        let request = ListResumeEntriesRequest { user_id, page_size: 100, ..ListResumeEntriesRequest::default() };
        let page = client(&world).list_resume_entries(Request::new(request)).await.unwrap().into_inner();
        assert!(page.entries.len() < count && !page.next_page_token.is_empty(), "{}", page.entries.len());
        assert_eq!(titles(&world, &person, 100).await.len(), count);
    }

    async fn an_entry_says_what_it_must_and_ends_after_its_start(world: World) {
        let person = world.member("A");
        let invalid = [
            (work(&person, "t", "2020-06", "2020-05"), "endMonth"),
            (work(&person, "t", "2020-13", ""), "startMonth"),
            (work(&person, "t", "", ""), "startMonth"),
            (work(&person, "", "2020-06", ""), "title"),
            (CreateResumeEntryRequest { kind: 0, ..work(&person, "t", "2020-06", "") }, "kind"),
            (CreateResumeEntryRequest { kind: 9, ..work(&person, "t", "2020-06", "") }, "kind"),
        ];
        for (request, field) in invalid {
            assert_eq!(refusal(add(&world, &person, request).await), (Reason::InvalidFields, vec![field.to_owned()]));
        }
        assert!(titles(&world, &person, 0).await.is_empty());

        let entry = add(&world, &person, work(&person, "t", "2020-06", "2020-06")).await.unwrap().into_inner();
        let update = async |entry_given: ResumeEntry, paths: &[&str]| change(&world, &person, &entry.id, entry_given, paths).await;
        let start = |month: &str| ResumeEntry { start_month: month.to_owned(), ..ResumeEntry::default() };
        let end = |month: &str| ResumeEntry { end_month: month.to_owned(), ..ResumeEntry::default() };
        let invalid = [
            (start("2020-07"), "start_month", "entry.startMonth"),
            (end("2020-05"), "end_month", "entry.endMonth"),
            (start(""), "start_month", "entry.startMonth"),
            (ResumeEntry::default(), "title", "entry.title"),
            (ResumeEntry::default(), "kind", "entry.kind"),
            (ResumeEntry::default(), "id", "updateMask"),
        ];
        for (given, path, field) in invalid {
            assert_eq!(refusal(update(given, &[path]).await), (Reason::InvalidFields, vec![field.to_owned()]));
        }
        let open = update(end(""), &["end_month"]).await.unwrap().into_inner();
        assert_eq!((open.start_month.as_str(), open.end_month.as_str()), ("2020-06", ""));
        let later = update(start("2021-01"), &[]).await.unwrap().into_inner();
        assert_eq!((later.start_month.as_str(), later.title.as_str()), ("2021-01", "t"));
    }

    async fn an_entry_is_changed_and_deleted_in_view_of_its_etag(world: World) {
        let person = world.member("A");
        let (request_id, markdown) = ("r".to_owned(), "*x*".to_owned());
        let request = CreateResumeEntryRequest { request_id, markdown, ..work(&person, "t", "2020-06", "") };
        let entry = add(&world, &person, request.clone()).await.unwrap().into_inner();
        assert_eq!(add(&world, &person, request.clone()).await.unwrap().into_inner(), entry);
        let other = CreateResumeEntryRequest { title: "u".to_owned(), ..request };
        assert_refused(add(&world, &person, other).await, Reason::RequestIdReused);
        assert!(entry.html.contains("<em>x</em>"));

        let given = ResumeEntry {
            etag: entry.etag.clone(),
            kind: Kind::Award.into(),
            organisation: "길드".to_owned(),
            markdown: "**y**".to_owned(),
            ..ResumeEntry::default()
        };
        let changed = change(&world, &person, &entry.id, given.clone(), &[]).await.unwrap().into_inner();
        assert_eq!((changed.kind(), changed.organisation.as_str(), changed.title.as_str()), (Kind::Award, "길드", "t"));
        assert!(changed.html.contains("<strong>y</strong>"));
        assert_refused(change(&world, &person, &entry.id, given, &[]).await, Reason::EtagMismatch);
        assert_refused(delete(&world, &person, &entry.id, &entry.etag).await, Reason::EtagMismatch);
        delete(&world, &person, &entry.id, &changed.etag).await.unwrap();
        assert_refused(delete(&world, &person, &entry.id, "").await, Reason::NotFound);
        assert!(titles(&world, &person, 0).await.is_empty());
    }

    async fn a_resume_has_two_hundred_entries_even_when_they_come_at_once(world: World) {
        let person = world.member("A");
        for number in 0..197 {
            add(&world, &person, work(&person, &number.to_string(), "2020-01", "")).await.unwrap();
        }
        let at_once = (0..6).map(async |_| add(&world, &person, work(&person, "last", "2020-01", "")).await);
        let outcomes = futures_util::future::join_all(at_once).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
        for refused in outcomes.into_iter().filter(Result::is_err) {
            assert_refused(refused, Reason::LimitReached);
        }
        assert_eq!(titles(&world, &person, 100).await.len(), 200);
    }

    async fn the_portfolio_of_somebody_who_is_shut_out_is_hidden(world: World) {
        let person = world.member("A");
        let portfolio = write(&world, &person, Portfolio { headline: "Me".to_owned(), ..Portfolio::default() }, &[]).await.unwrap();
        add(&world, &person, work(&person, "Work", "2020-01", "")).await.unwrap();
        world.auth.publish(1, &UserSuspended { user_id: person.id.to_string() }).await;
        eventually("the portfolio is hidden", async || get(&world, &person).await.is_err()).await;
        assert_refused(get(&world, &person).await, Reason::NotFound);
        assert!(titles(&world, &person, 0).await.is_empty());
        assert_refused(write(&world, &person, Portfolio::default(), &["headline"]).await, Reason::NotFound);
        assert_refused(add(&world, &person, work(&person, "More", "2020-01", "")).await, Reason::NotFound);
        world.auth.publish(2, &UserReinstated { user_id: person.id.to_string() }).await;
        eventually("the portfolio is back", async || get(&world, &person).await.is_ok()).await;
        assert_eq!(get(&world, &person).await.unwrap().into_inner(), portfolio.into_inner());
        assert_eq!(titles(&world, &person, 0).await, ["Work"]);
    }
}
