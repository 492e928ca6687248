//! Access tokens: what they carry, and who makes them (RFC 9068).

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use contracts::Role;
use ids::{SessionId, Source, TokenId, UserId};
use mesh::{
    SpiffeId, Tier, TrustDomain,
    token::{Audience, Claims},
};

use crate::{
    account::Account,
    signing_key::{self, KeyRing},
};

/// The audience of every access token: the platform.
pub const AUDIENCE: &str = "guildhall";
/// The first-party client that log-ins belong to. It is public: it has no secret.
pub const CLIENT: &str = "guildhall";

/// A set of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<String>);

/// A text that is no list of scopes (RFC 6749, 3.3).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("scopes are words of printable ASCII, separated by single spaces")]
pub struct NotScopes;

impl Scopes {
    /// Reads a list of scopes. An empty text is the empty set.
    pub fn parse(text: &str) -> Result<Self, NotScopes> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let is_scope =
            |word: &str| !word.is_empty() && word.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        text.split(' ')
            .map(|word| is_scope(word).then(|| word.to_owned()).ok_or(NotScopes))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What a first-party log-in may do. Each role adds to those below it. Until `verified`, nothing is written but the
    /// person's own profile.
    pub fn of_login(highest: Role, verified: bool) -> Self {
        const OF_ROLE: [(Role, &[&str]); 4] = [
            (Role::Member, &["profile", "content.write", "comment.write", "media.write", "sig.write"]),
            (Role::Moderator, &["moderation"]),
            (Role::Operator, &["liveops.operate"]),
            (Role::Admin, &["admin"]),
        ];
        if !verified {
            return Self::from_iter(["profile"]);
        }
        OF_ROLE.iter().filter(|(role, _)| *role <= highest).flat_map(|(_, scopes)| scopes.iter().copied()).collect()
    }

    pub fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }
}

impl<'a> FromIterator<&'a str> for Scopes {
    fn from_iter<I: IntoIterator<Item = &'a str>>(scopes: I) -> Self {
        Self(scopes.into_iter().map(str::to_owned).collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// How long a token is good for. The mesh forgets revocations after this time.
pub const LIFE: Duration = Duration::from_mins(10);

/// What a token is going to say. Drafted under the account's lock, so that a change of the account either shows in it or
/// revokes it; signed when the lock is gone.
pub struct Draft {
    claims: Claims,
}

/// An access token.
pub struct Issued {
    pub token: String,
    pub expires_in: Duration,
    /// Space-separated.
    pub scope: String,
}

/// Makes access tokens.
pub struct Issuer {
    /// The `iss` of every token.
    pub name: String,
    pub trust_domain: TrustDomain,
    /// Whether an unverified address keeps a person from writing.
    pub require_verified_email: bool,
    pub keys: Arc<KeyRing>,
    pub source: Source,
}

impl Issuer {
    /// All that a log-in to this account may do now.
    pub fn scopes(&self, account: &Account) -> Scopes {
        Scopes::of_login(account.roles.highest(), account.email_verified.is_some() || !self.require_verified_email)
    }

    /// The SPIFFE ID of a person.
    pub fn spiffe_id(&self, user: UserId) -> String {
        mesh::user_spiffe_id(&self.trust_domain, user).to_string()
    }

    /// A token in a person's name.
    pub fn for_user(&self, account: &Account, session: SessionId, scopes: &Scopes) -> Draft {
        let claims = self.claims(account.id.to_string(), scopes);
        Draft {
            claims: Claims {
                sid: Some(session),
                roles: account.roles.names(),
                tier: account.tier,
                client_id: CLIENT.to_owned(),
                spiffe_id: self.spiffe_id(account.id),
                email_verified: account.email_verified.is_some(),
                ..claims
            },
        }
    }

    /// A token in a workload's name. It has no session and no roles.
    pub fn for_workload(&self, workload: &SpiffeId, scopes: &Scopes) -> Draft {
        let id = workload.to_string();
        let claims = self.claims(id.clone(), scopes);
        Draft { claims: Claims { client_id: id.clone(), spiffe_id: id, ..claims } }
    }

    /// Signs a draft.
    pub fn sign(&self, draft: Draft) -> Result<Issued, signing_key::Error> {
        let token = self.keys.sign(&draft.claims, self.source.now())?;
        Ok(Issued { token, expires_in: LIFE, scope: draft.claims.scope })
    }

    fn claims(&self, sub: String, scopes: &Scopes) -> Claims {
        let now = self.source.now();
        Claims {
            iss: self.name.clone(),
            sub,
            aud: Audience::One(AUDIENCE.to_owned()),
            exp: (now + LIFE).seconds(),
            iat: now.seconds(),
            jti: self.source.id::<TokenId>().into(),
            sid: None,
            scope: scopes.to_string(),
            roles: Vec::new(),
            tier: Tier::Free,
            client_id: String::new(),
            spiffe_id: String::new(),
            email_verified: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role() -> impl Strategy<Value = Role> {
        prop::sample::select(vec![Role::Member, Role::Moderator, Role::Operator, Role::Admin])
    }

    proptest! {
        #[test]
        fn scopes_are_read_as_they_are_written(words in prop::collection::btree_set("[a-z.]{1,10}", 0..6)) {
            let scopes: Scopes = words.iter().map(String::as_str).collect();
            prop_assert_eq!(Scopes::parse(&scopes.to_string()), Ok(scopes));
        }

        #[test]
        fn a_higher_role_may_do_all_that_a_lower_may(lower in role(), higher in role(), verified: bool) {
            prop_assume!(lower <= higher);
            prop_assert!(Scopes::of_login(lower, verified).is_subset(&Scopes::of_login(higher, verified)));
            prop_assert!(Scopes::of_login(lower, false).is_subset(&Scopes::of_login(lower, true)));
        }

        #[test]
        fn arbitrary_text_is_refused_or_read(text in ".{0,40}") {
            if let Ok(scopes) = Scopes::parse(&text) {
                prop_assert_eq!(Scopes::parse(&scopes.to_string()), Ok(scopes));
            }
        }
    }

    #[test]
    fn a_member_writes_and_an_unverified_one_only_their_profile() {
        let text = |role, verified| Scopes::of_login(role, verified).to_string();
        assert_eq!(text(Role::Member, true), "comment.write content.write media.write profile sig.write");
        assert_eq!(text(Role::Admin, false), "profile");
        assert_eq!(
            text(Role::Admin, true),
            "admin comment.write content.write liveops.operate media.write moderation profile sig.write"
        );
    }

    #[test]
    fn what_is_no_list_of_scopes_is_refused() {
        for text in [" ", "a  b", " a", "a ", "a\"b", "a\\b", "a\tb", "프로필"] {
            assert_eq!(Scopes::parse(text), Err(NotScopes), "{text:?}");
        }
    }
}
