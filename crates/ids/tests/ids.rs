//! Time, randomness and ids through the public surface.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ids::{
    Clock as _, EventId, ManualClock, OutOfRange, PostId, Random as _, SeededRandom, Source, SystemClock, Timestamp,
    UserId, Uuid,
};
use proptest::prelude::*;

fn source(clock: &Arc<ManualClock>, seed: u64) -> Source {
    Source::new(clock.clone(), Arc::new(SeededRandom::new(seed)))
}

fn noon() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("\"2026-06-10T12:00:00Z\"".parse_json()))
}

trait ParseJson {
    fn parse_json(&self) -> Timestamp;
}

impl ParseJson for str {
    fn parse_json(&self) -> Timestamp {
        serde_json::from_str(self).unwrap()
    }
}

#[test]
fn ids_sort_by_the_microsecond_of_their_making() {
    let clock = noon();
    let source = source(&clock, 1);
    let mut ids: Vec<PostId> = Vec::new();
    for step in [1, 1, 7, 991, 1_000, 1_000_000, 86_400_000_000] {
        ids.push(source.id());
        clock.advance(Duration::from_micros(step));
    }
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
    assert!(ids.iter().map(ToString::to_string).collect::<Vec<_>>().is_sorted());
}

#[test]
fn an_id_is_a_uuid_of_version_7_with_the_time_of_its_making() {
    let clock = noon();
    let id: Uuid = source(&clock, 1).id::<UserId>().into();
    assert_eq!(id.get_version_num(), 7);
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    assert_eq!((i64::try_from(seconds).unwrap(), nanos), (clock.now().seconds(), 0));
}

#[test]
fn ids_of_one_moment_differ() {
    let source = source(&noon(), 1);
    let ids: HashSet<EventId> = (0..10_000).map(|_| source.id()).collect();
    assert_eq!(ids.len(), 10_000);
}

#[test]
fn the_same_clock_and_seed_give_the_same_ids_and_bytes() {
    let clock = noon();
    let (one, same, other) = (source(&clock, 1), source(&clock, 1), source(&clock, 2));
    assert_eq!(one.id::<PostId>(), same.id::<PostId>());
    let bytes = one.bytes::<32>();
    assert_eq!(bytes, same.bytes());
    assert_ne!(bytes, other.bytes());
}

#[test]
fn an_id_reads_back_from_its_text_and_its_json() {
    let id: PostId = source(&noon(), 1).id();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(id.to_string().len(), 36);
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    assert_eq!(serde_json::from_str::<PostId>(&format!("\"{id}\"")).unwrap(), id);
    assert!("not-an-id".parse::<PostId>().is_err());
}

#[test]
fn the_systems_source_gives_time_and_randomness() {
    let source = Source::system();
    assert!(source.now() >= "\"2025-01-01T00:00:00Z\"".parse_json());
    assert!(SystemClock.now() >= source.now() - Duration::from_mins(1));
    assert_ne!(source.bytes::<16>(), source.bytes());
    let mut bytes = [0; 64];
    ids::SystemRandom.fill(&mut bytes);
    assert_ne!(bytes, [0; 64]);
}

#[test]
fn a_manual_clock_stands_still_until_it_is_moved() {
    let clock = ManualClock::new(Timestamp::EPOCH);
    assert_eq!(clock.now(), clock.now());
    clock.advance(Duration::from_millis(1500));
    assert_eq!(clock.now(), Timestamp::from_micros(1_500_000));
    clock.set(Timestamp::from_seconds(-1));
    assert_eq!(clock.now().micros(), -1_000_000);
}

#[test]
fn a_timestamp_is_written_as_rfc_3339_in_utc() {
    assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
    assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00Z");
    assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
    assert_eq!("\"2026-06-10T14:00:00+02:00\"".parse_json(), noon().now());
}

#[test]
fn the_time_since_a_later_moment_is_zero() {
    let (earlier, later) = (Timestamp::from_seconds(1), Timestamp::from_seconds(3));
    assert_eq!(later.since(earlier), Duration::from_secs(2));
    assert_eq!(earlier.since(later), Duration::ZERO);
    assert_eq!(Timestamp::MAX.since(Timestamp::MIN).as_secs(), 315_537_897_599);
}

#[test]
fn arithmetic_stops_at_the_bounds() {
    assert_eq!(Timestamp::MAX + Duration::from_micros(1), Timestamp::MAX);
    assert_eq!(Timestamp::MIN - Duration::MAX, Timestamp::MIN);
    assert_eq!(Timestamp::from_micros(i64::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::from_seconds(i64::MIN), Timestamp::MIN);
}

#[test]
fn a_protobuf_time_out_of_range_is_refused() {
    let convert = |seconds, nanos| Timestamp::try_from(prost_types::Timestamp { seconds, nanos });
    assert_eq!(convert(Timestamp::MIN.seconds(), 0), Ok(Timestamp::MIN));
    assert_eq!(convert(Timestamp::MAX.seconds(), 999_999_999), Ok(Timestamp::MAX));
    for (seconds, nanos) in [
        (Timestamp::MIN.seconds() - 1, 0),
        (Timestamp::MAX.seconds() + 1, 0),
        (0, -1),
        (0, 1_000_000_000),
        (i64::MAX, 0),
    ] {
        assert_eq!(convert(seconds, nanos), Err(OutOfRange), "{seconds} {nanos}");
    }
}

fn timestamps() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).prop_map(Timestamp::from_micros)
}

proptest! {
    #[test]
    fn a_timestamp_survives_protobuf_json_and_the_time_crate(timestamp in timestamps()) {
        prop_assert_eq!(Timestamp::try_from(prost_types::Timestamp::from(timestamp)), Ok(timestamp));
        prop_assert_eq!(serde_json::to_string(&timestamp).unwrap().parse_json(), timestamp);
        prop_assert_eq!(Timestamp::from(time::OffsetDateTime::from(timestamp)), timestamp);
    }

    #[test]
    fn order_is_the_same_in_every_form(one in timestamps(), other in timestamps()) {
        let proto = |timestamp| {
            let proto = prost_types::Timestamp::from(timestamp);
            (proto.seconds, proto.nanos)
        };
        prop_assert_eq!(one.cmp(&other), proto(one).cmp(&proto(other)));
        prop_assert_eq!(one.cmp(&other), time::OffsetDateTime::from(one).cmp(&other.into()));
    }

    #[test]
    fn what_was_added_has_passed_since(
        start in (Timestamp::MIN.micros()..0).prop_map(Timestamp::from_micros),
        micros in 0..1_000_000_000_000_u64,
    ) {
        let step = Duration::from_micros(micros);
        prop_assert_eq!((start + step).since(start), step);
        prop_assert_eq!(start + step - step, start);
    }
}
