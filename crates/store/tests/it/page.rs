use ids::{PostId, Source, Timestamp};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use status::Reason;
use store::page::{self, Tokens};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cursor {
    time: Timestamp,
    id: PostId,
    title: String,
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (0..4_000_000_000_000_000_i64, any::<u128>(), ".*").prop_map(|(time, id, title)| Cursor {
        time: Timestamp::from_micros(time),
        id: uuid::Uuid::from_u128(id).into(),
        title,
    })
}

fn refused(tokens: &Tokens, scope: &str, token: &str) -> bool {
    tokens.read::<Cursor>(scope, token).is_err_and(|problem| problem.reason() == Reason::PageTokenInvalid)
}

proptest! {
    #[test]
    fn a_cursor_comes_back_from_its_token(cursor in cursor(), scope in ".*", key: [u8; 32]) {
        let tokens = Tokens::new(key);
        let token = tokens.issue(&scope, &cursor);
        prop_assert_eq!(tokens.read(&scope, &token).unwrap(), Some(cursor));
    }

    #[test]
    fn a_token_with_any_character_changed_is_refused(cursor in cursor(), place: prop::sample::Index, character in "[A-Za-z0-9_-]") {
        let tokens = Tokens::new([7; 32]);
        let token = tokens.issue("posts", &cursor);
        let place = place.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(place..=place, &character);
        prop_assume!(changed != token);
        prop_assert!(refused(&tokens, "posts", &changed));
        prop_assert!(refused(&tokens, "posts", &token[..place]) || place == 0);
    }

    #[test]
    fn a_token_with_any_bit_flipped_is_refused(cursor in cursor(), place: prop::sample::Index, bit in 0..8_u8) {
        let tokens = Tokens::new([7; 32]);
        let mut token = tokens.issue("posts", &cursor).into_bytes();
        let place = place.index(token.len());
        token[place] ^= 1 << bit;
        prop_assert!(refused(&tokens, "posts", &String::from_utf8_lossy(&token)));
    }

    #[test]
    fn a_token_of_another_scope_or_key_is_refused(cursor in cursor(), scope in ".*", other in ".*", key: [u8; 32]) {
        prop_assume!(scope != other && key != [0; 32]);
        let token = Tokens::new(key).issue(&scope, &cursor);
        prop_assert!(refused(&Tokens::new(key), &other, &token));
        prop_assert!(refused(&Tokens::new([0; 32]), &scope, &token));
    }

    #[test]
    fn no_text_is_read_as_a_token(text in ".+") {
        prop_assert!(refused(&Tokens::new([7; 32]), "posts", &text));
    }
}

#[test]
fn the_first_page_has_no_token() {
    assert_eq!(Tokens::new([7; 32]).read::<Cursor>("posts", "").unwrap(), None);
}

#[test]
fn a_token_for_a_cursor_of_another_shape_is_refused() {
    let tokens = Tokens::new([7; 32]);
    assert!(refused(&tokens, "posts", &tokens.issue("posts", &Source::system().id::<PostId>())));
}

#[test]
fn a_page_has_twenty_rows_unless_asked_for_and_a_hundred_at_most() {
    assert_eq!([0, 1, 100, 101, i32::MAX, -1].map(page::size), [20, 1, 100, 100, 100, 20]);
}
