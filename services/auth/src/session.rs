//! Sessions, and the refresh tokens that keep them open.

use std::time::Duration;

use ids::{SessionId, Timestamp, UserId};

/// One log-in of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub user: UserId,
    /// The OAuth client that it belongs to.
    pub client: String,
    /// The program that logged in, as it named itself.
    pub user_agent: String,
    pub created: Timestamp,
    pub used: Timestamp,
    /// When it ends unless it is used before.
    pub expires: Timestamp,
    pub state: State,
}

/// Whether somebody ended the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Ended { at: Timestamp },
}

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Life without use.
    pub idle: Duration,
    /// Life however much it is used.
    pub absolute: Duration,
    /// For how long a used refresh token gives its successor again, to a client that the first answer did not reach.
    pub grace: Duration,
}

/// What is known of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Nobody has used it.
    Fresh,
    Used {
        at: Timestamp,
    },
}

/// What presenting a refresh token comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// It is used up now, and its successor takes its place.
    Rotate,
    /// It was used a moment ago, and its successor was not: the answer got lost, and is given again.
    Repeat,
    /// It was used, so one of two holders has stolen it: the session ends.
    Reuse,
    /// The session is over.
    Over,
}

/// The longest user agent that is kept, in characters.
const USER_AGENT_LENGTH: usize = 200;

impl Session {
    /// Opens a session.
    pub fn open(id: SessionId, user: UserId, client: &str, user_agent: &str, policy: Policy, now: Timestamp) -> Self {
        let user_agent = user_agent.chars().filter(|c| !c.is_control()).take(USER_AGENT_LENGTH).collect();
        Self {
            id,
            user,
            client: client.to_owned(),
            user_agent,
            created: now,
            used: now,
            expires: now + policy.idle.min(policy.absolute),
            state: State::Open,
        }
    }

    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == State::Open && now < self.expires
    }

    /// The session's etag.
    pub fn etag(&self) -> String {
        self.used.micros().to_string()
    }

    /// Ends the session. Answers whether it was open.
    pub fn end(&mut self, now: Timestamp) -> bool {
        let was_open = self.is_open(now);
        if was_open {
            self.state = State::Ended { at: now };
        }
        was_open
    }

    /// Presents a refresh token of this session, given what is known of it and of its successor, if that was ever made.
    pub fn redeem(&mut self, token: Refresh, successor: Option<Refresh>, policy: Policy, now: Timestamp) -> Redemption {
        if !self.is_open(now) {
            return Redemption::Over;
        }
        match (token, successor) {
            (Refresh::Fresh, _) => {
                self.used = now;
                self.expires = (now + policy.idle).min(self.created + policy.absolute);
                Redemption::Rotate
            }
            (Refresh::Used { at }, Some(Refresh::Fresh)) if now.since(at) < policy.grace => Redemption::Repeat,
            (Refresh::Used { .. }, _) => {
                self.end(now);
                Redemption::Reuse
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ids::Source;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: Policy =
        Policy { idle: Duration::from_secs(30), absolute: Duration::from_secs(90), grace: Duration::from_secs(10) };

    fn session() -> Session {
        let source = Source::system();
        Session::open(source.id(), source.id(), "guildhall", "curl/8", POLICY, Timestamp::from_micros(0))
    }

    /// A client that presents the token of generation `generation`, `wait` seconds after the step before.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        wait: u32,
        behind: usize,
    }

    fn step() -> impl Strategy<Value = Step> {
        (0_u32..40, prop_oneof![4 => Just(0_usize), 1 => 1_usize..3]).prop_map(|(wait, behind)| Step { wait, behind })
    }

    proptest! {
        /// Against a model that keeps every token ever made: a fresh token rotates, the one before it repeats within the grace,
        /// anything older ends the session for good, and time ends it too.
        #[test]
        fn redemptions_follow_the_model(steps in prop::collection::vec(step(), 1..40)) {
            let mut session = session();
            let mut tokens = vec![Refresh::Fresh];
            let (mut now, mut last_use) = (Timestamp::from_micros(0), Timestamp::from_micros(0));
            let mut over = false;
            for Step { wait, behind } in steps {
                now = now + SECOND * wait;
                let presented = (tokens.len() - 1).saturating_sub(behind);
                over |= now.since(last_use) >= POLICY.idle || now.since(session.created) >= POLICY.absolute;
                let expected = match tokens[presented] {
                    _ if over => Redemption::Over,
                    Refresh::Fresh => Redemption::Rotate,
                    Refresh::Used { at } if presented + 2 == tokens.len() && now.since(at) < POLICY.grace => Redemption::Repeat,
                    Refresh::Used { .. } => Redemption::Reuse,
                };
                prop_assert_eq!(session.redeem(tokens[presented], tokens.get(presented + 1).copied(), POLICY, now), expected);
                match expected {
                    Redemption::Rotate => {
                        tokens[presented] = Refresh::Used { at: now };
                        tokens.push(Refresh::Fresh);
                        last_use = now;
                    }
                    Redemption::Reuse => over = true,
                    Redemption::Repeat | Redemption::Over => {}
                }
                prop_assert_eq!(session.is_open(now), !over);
                prop_assert!(session.expires.since(session.created) <= POLICY.absolute);
            }
        }
    }

    #[test]
    fn a_user_agent_is_kept_short_and_on_one_line() {
        let source = Source::system();
        let agent = format!("curl\r\n{}", "x".repeat(1000));
        let session = Session::open(source.id(), source.id(), "guildhall", &agent, POLICY, source.now());
        assert_eq!(session.user_agent, format!("curl{}", "x".repeat(196)));
    }
}
