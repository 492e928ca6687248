//! Point 12 of the gateway's bar, and streams in both directions.
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use edge_gateway::transcode::Format;
use futures_util::{Stream, StreamExt, stream};
use prost_reflect::{DynamicMessage, prost::Message};
use serde_json::{Value, json};
use status::{Problem, Reason};

use crate::{KITCHEN, canonical, find, headers, message};

const LIMIT: usize = 64;

fn chunks(parts: &[&[u8]]) -> impl Stream<Item = Result<Bytes, Problem>> + Send + use<> {
    stream::iter(parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>())
}

/// The messages that arrive, and what refuses the rest.
async fn upload(request: &str, content_type: &str, parts: &[&[u8]]) -> (Vec<Value>, Option<Problem>) {
    let (found, query) = find(request);
    let lines = headers(if content_type.is_empty() { vec![] } else { vec![("content-type", content_type)] }.as_slice());
    let messages = match found.request_stream(query, &lines, chunks(parts), LIMIT) {
        Ok(messages) => messages.collect::<Vec<_>>().await,
        Err(problem) => return (vec![], Some(problem)),
    };
    let (mut arrived, mut refusal) = (Vec::new(), None);
    for message in messages {
        assert!(refusal.is_none(), "nothing comes after an error");
        match message {
            Ok(bytes) => arrived.push(canonical(&DynamicMessage::decode(found.rpc().input.clone(), bytes).unwrap())),
            Err(problem) => refusal = Some(problem),
        }
    }
    (arrived, refusal)
}

#[tokio::test]
async fn lines_and_arrays_are_cut_into_messages_however_they_arrive() {
    let lines = "{\"name\": \"a\\n{[\"}\r\n\n  \n{\"name\": \"b\", \"cook\": {\"name\": \"\\\"]\"}}";
    let array = " [ {\"name\": \"a\\n{[\"} ,\n{\"name\": \"b\", \"cook\": {\"name\": \"\\\"]\"}}] \n";
    let expected = vec![json!({"name": "a\n{["}), json!({"name": "b", "cook": {"name": "\"]"}})];
    for size in 1..80 {
        for (content_type, body) in
            [("application/x-ndjson", lines), ("", lines), ("application/jsonl", lines), ("application/json", array)]
        {
            let parts: Vec<_> = body.as_bytes().chunks(size).collect();
            let (arrived, refusal) = upload("POST /dishes:import", content_type, &parts).await;
            assert!(refusal.is_none(), "{refusal:?}");
            assert_eq!(arrived, expected, "{content_type} in pieces of {size}");
        }
    }
}

#[tokio::test]
async fn an_empty_stream_is_no_message() {
    for (content_type, body) in
        [("application/json", "[]"), ("application/json", " [ ] "), ("application/json", ""), ("", ""), ("", "\n \n")]
    {
        let (arrived, refusal) = upload("POST /dishes:import", content_type, &[body.as_bytes()]).await;
        assert!(arrived.is_empty() && refusal.is_none(), "{body:?}");
    }
}

#[tokio::test]
async fn the_path_is_set_in_every_message() {
    let (arrived, _) = upload("POST /menus/m/dishes:import", "", &[b"{\"menu\": \"x\"}\n{}\n"]).await;
    assert_eq!(arrived, [json!({"menu": "m"}), json!({"menu": "m"})]);
}

#[tokio::test]
async fn a_stream_ends_at_its_first_bad_message_and_says_which_it_is() {
    let (arrived, refusal) = upload("POST /dishes:import", "", &[b"{\"name\": \"a\"}\n{\"nothing\": 1}\n{}"]).await;
    let refusal = refusal.unwrap();
    assert_eq!(
        (arrived.len(), refusal.reason(), refusal.violation_list()[0].field.as_str()),
        (1, Reason::UnknownField, "nothing")
    );
    assert!(refusal.text().starts_with("Message 2: "), "{}", refusal.text());
}

#[tokio::test]
async fn malformed_arrays_are_refused() {
    for body in [
        "{}", "null", "[", "[{}", "[{},", "[{},]", "[,{}]", "[{},,{}]", "[{}] {}", "[{}]]", "[{} {}]", "[}]", "[\"",
        "[[]]", "[1]", "[null]",
    ] {
        let (_, refusal) = upload("POST /dishes:import", "application/json", &[body.as_bytes()]).await;
        let refusal = refusal.unwrap_or_else(|| panic!("{body} was taken"));
        assert!([Reason::MalformedRequest, Reason::InvalidFields].contains(&refusal.reason()), "{body}: {refusal}");
    }
}

#[tokio::test]
async fn a_message_longer_than_the_limit_is_refused_before_it_is_whole() {
    let endless = || stream::repeat_with(|| Ok(Bytes::from_static(b"{\"name\": \"xxxxxxxx")));
    let (found, _) = find("POST /dishes:import");
    for content_type in ["application/x-ndjson", "application/json"] {
        let body = stream::iter([Ok(Bytes::from_static(b"["))]).chain(endless());
        let messages = found.request_stream(None, &headers(&[("content-type", content_type)]), body, LIMIT).unwrap();
        let reasons: Vec<_> = messages.map(|message| message.unwrap_err().reason()).collect().await;
        assert_eq!(reasons, [Reason::PayloadTooLarge]);
    }
    let line = [&[b' '; LIMIT - 2][..], b"{}\n"].concat();
    assert_eq!(upload("POST /dishes:import", "", &[&line]).await.0.len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_stream_with_its_problem() {
    let (found, _) = find("POST /dishes:import");
    let body = stream::iter([Ok(Bytes::from_static(b"{}\n")), Err(Problem::new(Reason::DeadlineExceeded))]);
    let messages: Vec<_> = found.request_stream(None, &headers(&[]), body, LIMIT).unwrap().collect().await;
    assert!(messages[0].is_ok());
    assert_eq!(messages[1].as_ref().unwrap_err().reason(), Reason::DeadlineExceeded);
    assert_eq!(messages.len(), 2);
}

#[tokio::test]
async fn a_stream_of_another_media_type_is_refused_at_once() {
    let (_, refusal) = upload("POST /dishes:import", "text/csv", &[b"a,b"]).await;
    assert_eq!(refusal.unwrap().reason(), Reason::UnsupportedMediaType);
}

#[tokio::test]
async fn raw_chunks_go_up_as_they_come_and_the_first_says_what_they_are() {
    let large = [7; LIMIT + 1];
    let (arrived, refusal) = upload("POST /streams/n?priority=3", "image/png", &[b"ab", &large, b""]).await;
    assert!(refusal.is_none());
    let bytes: Vec<_> = arrived.iter().map(|message| message["file"]["data"].as_str().unwrap().len()).collect();
    assert_eq!(arrived[0], json!({"name": "n", "priority": 3, "file": {"contentType": "image/png", "data": "YWI="}}));
    assert_eq!(bytes, [4, 88, 4]);
    assert_eq!(arrived[2], json!({"file": {"data": "Bw=="}}));
    let (arrived, _) = upload("POST /streams/n", "image/png", &[]).await;
    assert_eq!(arrived, [json!({"name": "n", "file": {"contentType": "image/png"}})]);
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a stream")]
fn dish(name: &str) -> Result<Bytes, Problem> {
    Ok(DynamicMessage::deserialize(message("Dish"), json!({"name": name})).unwrap().encode_to_vec().into())
}

fn lost() -> Problem {
    Problem::new(Reason::Unavailable).because("10.0.0.3 is down")
}

async fn watch(format: Format, messages: Vec<Result<Bytes, Problem>>) -> Result<(String, String), Problem> {
    let answer = find("GET /dishes:watch").0.response_stream(format, stream::iter(messages)).await?;
    let frames: Vec<_> = answer.body.collect().await;
    let frames: Vec<_> = frames.into_iter().map(|frame| String::from_utf8(frame.unwrap().to_vec()).unwrap()).collect();
    Ok((answer.content_type.to_str().unwrap().to_owned(), frames.concat()))
}

#[tokio::test]
async fn a_stream_is_lines_events_or_an_array_by_accept() {
    let (found, _) = find("GET /dishes:watch");
    let format = |accept: &str| found.negotiate(&headers(&[("accept", accept)])).unwrap();
    assert_eq!(
        (format("*/*"), format("text/event-stream"), format("application/json")),
        (Format::Lines, Format::Events, Format::Array)
    );
    assert_eq!(found.negotiate(&headers(&[("accept", "image/png")])).unwrap_err().reason(), Reason::NotAcceptable);

    let messages = || vec![dish("a\nb"), dish("c")];
    let (content_type, lines) = watch(Format::Lines, messages()).await.unwrap();
    let names: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone()).collect();
    assert_eq!((content_type.as_str(), names), ("application/x-ndjson", vec![json!("a\nb"), json!("c")]));
    assert!(lines.ends_with('\n'));

    let (content_type, array) = watch(Format::Array, messages()).await.unwrap();
    let array: Value = serde_json::from_str(&array).unwrap();
    assert_eq!(
        (content_type.as_str(), &array[0]["name"], &array[1]["name"]),
        ("application/json", &json!("a\nb"), &json!("c"))
    );

    let (content_type, events) = watch(Format::Events, messages()).await.unwrap();
    let events: Vec<_> = events.split_terminator("\n\n").collect();
    assert_eq!((content_type.as_str(), events.len()), ("text/event-stream", 2));
    let first: Value = serde_json::from_str(events[0].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(first["name"], "a\nb");
}

#[tokio::test]
async fn an_empty_answer_is_whole_in_every_format() {
    for (format, body) in [(Format::Lines, ""), (Format::Events, ""), (Format::Array, "[]")] {
        assert_eq!(watch(format, vec![]).await.unwrap().1, body);
    }
}

#[tokio::test]
async fn what_fails_before_the_first_message_is_a_problem_of_its_own() {
    for format in [Format::Lines, Format::Events, Format::Array, Format::Raw] {
        assert_eq!(watch(format, vec![Err(lost()), dish("a")]).await.unwrap_err().reason(), Reason::Unavailable);
        assert_eq!(watch(format, vec![Ok(Bytes::from_static(b"\xff"))]).await.unwrap_err().reason(), Reason::Internal);
    }
}

#[tokio::test]
async fn what_fails_later_is_the_last_frame_and_hides_its_cause() {
    let failing = || vec![dish("a"), Err(lost()), dish("b")];
    let (_, lines) = watch(Format::Lines, failing()).await.unwrap();
    let last: Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!((lines.lines().count(), &last["error"]["reason"]), (2, &json!("UNAVAILABLE")));

    let (_, array) = watch(Format::Array, failing()).await.unwrap();
    let elements: Vec<Value> = serde_json::from_str(&array).unwrap();
    assert_eq!((elements.len(), &elements[1]["error"]["reason"]), (2, &json!("UNAVAILABLE")));

    let (_, events) = watch(Format::Events, failing()).await.unwrap();
    let last = events.split_terminator("\n\n").nth(1).unwrap().strip_prefix("event: error\ndata: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["reason"], "UNAVAILABLE");
    for text in [lines, array, events] {
        assert!(!text.contains("10.0.0.3") && !text.contains("\"b\""), "{text}");
    }
    let (_, lines) = watch(Format::Lines, vec![dish("a"), Ok(Bytes::from_static(b"\xff"))]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(lines.lines().last().unwrap()).unwrap()["error"]["reason"], "INTERNAL");
}

#[tokio::test]
async fn raw_chunks_come_down_untouched_and_a_failure_breaks_them_off() {
    let chunk = |json: Value| {
        let kind = KITCHEN.pool().get_message_by_name("google.api.HttpBody").unwrap();
        Ok::<_, Problem>(Bytes::from(DynamicMessage::deserialize(kind, json).unwrap().encode_to_vec()))
    };
    let messages =
        vec![chunk(json!({"contentType": "video/mp4", "data": "AAEK"})), chunk(json!({"data": "/w=="})), Err(lost())];
    let answer = find("GET /downloads/a").0.response_stream(Format::Raw, stream::iter(messages)).await.unwrap();
    assert_eq!(answer.content_type, "video/mp4");
    let frames: Vec<_> = answer.body.collect().await;
    assert_eq!((&frames[0].as_ref().unwrap()[..], &frames[1].as_ref().unwrap()[..]), (&[0, 1, 10][..], &[0xff][..]));
    assert!(frames[2].is_err() && frames.len() == 3);
}

#[tokio::test]
async fn a_client_that_leaves_drops_the_messages() {
    struct Guard(Arc<AtomicBool>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Guard(Arc::clone(&dropped));
    let messages = stream::iter([dish("a")]).chain(stream::pending()).inspect(move |_| {
        let _ = &guard;
    });
    let answer = find("GET /dishes:watch").0.response_stream(Format::Lines, messages).await.unwrap();
    let mut body = Box::pin(answer.body);
    assert!(body.next().await.unwrap().is_ok());
    assert!(!dropped.load(Ordering::SeqCst));
    drop(body);
    assert!(dropped.load(Ordering::SeqCst));
}
