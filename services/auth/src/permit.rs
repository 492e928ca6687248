//! The one table of rules about single resources, by the names that the contract uses (`resource_rule`).

use ids::UserId;

use crate::session::Session;

/// A rule about one kind of resource.
pub struct Rule<R> {
    /// The name in the contract.
    pub name: &'static str,
    allows: fn(UserId, &R) -> bool,
}

/// A rule said no.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the rule `{0}` does not allow this")]
pub struct Forbidden(pub &'static str);

/// A session may be ended by the person whose it is.
pub const SESSION_OWNER: Rule<Session> = Rule { name: "session.owner", allows: |user, session| session.user == user };

impl<R> Rule<R> {
    /// Whether `user` may act on `resource`.
    pub fn check(&self, user: UserId, resource: &R) -> Result<(), Forbidden> {
        if (self.allows)(user, resource) { Ok(()) } else { Err(Forbidden(self.name)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ids::Source;

    use super::*;
    use crate::session::Policy;

    #[test]
    fn session_owner_lets_the_owner_through_and_nobody_else() {
        let source = Source::system();
        let policy = Policy { idle: Duration::from_secs(1), absolute: Duration::from_secs(1), grace: Duration::ZERO };
        let owner = source.id();
        let session = Session::open(source.id(), owner, "guildhall", "", policy, source.now());
        assert_eq!(SESSION_OWNER.check(owner, &session), Ok(()));
        assert_eq!(SESSION_OWNER.check(source.id(), &session), Err(Forbidden("session.owner")));
    }

    /// A rule that the contract names and this table lacks, or the other way round, is a mistake.
    #[test]
    fn the_table_has_the_rules_of_the_contract() {
        let mut named: Vec<_> =
            contracts::METHODS.iter().filter(|m| m.owner == "auth").filter_map(|m| m.access.resource_rule).collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, [SESSION_OWNER.name]);
    }
}
