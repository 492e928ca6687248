use std::sync::Arc;

use contracts::Event as _;
use contracts::auth::v1::UserUpdated;
use contracts::common::v1::dead_letter_service_server::DeadLetterService as _;
use contracts::common::v1::{DeadLetterServiceListRequest, DeadLetterServiceReplayRequest};
use events::{
    Bus as _, DeadLetterRpc, DeadLetters, Delivery, EmbeddedBus, Envelope, Failure, Handler, MIGRATIONS, Subscription,
    async_trait,
};
use ids::Source;
use status::{Problem, Reason};
use store::page::Tokens;
use tonic::{Request, Status};

/// Rejects what it gets.
struct Refuses;

#[async_trait]
impl Handler for Refuses {
    async fn handle(&self, _: &Envelope) -> Result<(), Failure> {
        Err(Failure::Reject(format!("no\0 {}", "x".repeat(1000))))
    }
}

fn event(key: &str) -> Envelope {
    let source = Source::system();
    Envelope {
        id: source.id(),
        source: "auth".into(),
        topic: UserUpdated::TOPIC.into(),
        key: key.into(),
        version: 1,
        time: source.now(),
        traceparent: None,
        payload: Vec::new().into(),
    }
}

fn subscription(consumer: &'static str) -> Subscription {
    Subscription { consumer, topics: &[UserUpdated::TOPIC], delivery: Delivery::Work }
}

fn reason(status: &Status) -> Reason {
    Problem::from(status).reason()
}

store::on_both! {
    migrations: &[&MIGRATIONS];

    async fn dead_letters_are_listed_by_pages_and_by_consumer_and_replayed_by_rpc(db: Db) {
        let dead_letters = DeadLetters::new(db.clone(), Source::system());
        let bus = EmbeddedBus::new(Source::system());
        let mut running = Vec::new();
        for consumer in ["content.first", "content.second"] {
            running.push(bus.subscribe(subscription(consumer), Arc::new(Refuses), dead_letters.clone()).await.unwrap());
        }
        let events: Vec<_> = (0..5).map(|number| event(&format!("key-{number}"))).collect();
        bus.publish(&events).await.unwrap();
        let rpc = DeadLetterRpc::new(dead_letters, Tokens::new([7; 32]));

        let mut keys = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = DeadLetterServiceListRequest { consumer: "content.second".into(), page_size: 2, page_token };
            let page = rpc.list(Request::new(request)).await.unwrap().into_inner();
            assert!(page.dead_letters.len() <= 2);
            for letter in page.dead_letters {
                assert_eq!((letter.consumer.as_str(), letter.attempts, letter.reason.chars().count()), ("content.second", 1, 500));
                keys.push(letter.key);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        keys.sort();
        assert_eq!(keys, ["key-0", "key-1", "key-2", "key-3", "key-4"]);

        let all = rpc.list(Request::new(DeadLetterServiceListRequest { page_size: 3, ..Default::default() })).await.unwrap().into_inner();
        let foreign = DeadLetterServiceListRequest { consumer: "content.first".into(), page_size: 3, page_token: all.next_page_token };
        assert_eq!(reason(&rpc.list(Request::new(foreign)).await.unwrap_err()), Reason::PageTokenInvalid);

        let request = DeadLetterServiceReplayRequest { consumer: "content.first".into(), ids: Vec::new() };
        let answer = rpc.replay(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((answer.replayed, answer.failed), (0, 5));
        let request = DeadLetterServiceReplayRequest { ids: vec![all.dead_letters[0].id.clone()], ..Default::default() };
        let answer = rpc.replay(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((answer.replayed, answer.failed), (0, 1));
        let nothing = rpc.replay(Request::new(DeadLetterServiceReplayRequest::default())).await.unwrap_err();
        assert_eq!(reason(&nothing), Reason::InvalidFields);
        for running in running {
            running.stop().await;
        }
    }
}
