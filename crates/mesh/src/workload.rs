use std::{fmt, str::FromStr, sync::Arc};

use ids::UserId;
use spiffe::{SpiffeId, TrustDomain};

/// The name of a service account, for instance `content`: 1 to 63 of `a-z`, `0-9` and `-`, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload(Arc<str>);

/// The text does not name a service account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a workload: 1 to 63 of a-z, 0-9 and -")]
pub struct NotAWorkload(String);

impl Workload {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its SPIFFE ID: `spiffe://<trust domain>/ns/<namespace>/sa/<name>`, the shape that Istio and SPIRE use.
    ///
    /// `None` when the namespace cannot be part of an ID.
    pub fn spiffe_id(&self, trust_domain: &TrustDomain, namespace: &str) -> Option<SpiffeId> {
        SpiffeId::from_segments(trust_domain.clone(), &["ns", namespace, "sa", self.as_str()]).ok()
    }

    /// The workload that an ID names in `namespace`. `None` for anything else: another namespace's, a person's.
    pub fn of(id: &SpiffeId, namespace: &str) -> Option<Self> {
        let mut segments = id.path().strip_prefix('/')?.split('/');
        let shape = (segments.next()?, segments.next()?, segments.next()?, segments.next()?, segments.next());
        match shape {
            ("ns", ns, "sa", name, None) if ns == namespace => name.parse().ok(),
            _ => None,
        }
    }
}

impl FromStr for Workload {
    type Err = NotAWorkload;

    fn from_str(name: &str) -> Result<Self, NotAWorkload> {
        let fits =
            (1..=63).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits { Ok(Self(name.into())) } else { Err(NotAWorkload(name.to_owned())) }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person's SPIFFE ID: `spiffe://<trust domain>/user/<user id>`. No rule for workloads ever matches it.
pub fn user_spiffe_id(trust_domain: &TrustDomain, user: UserId) -> SpiffeId {
    SpiffeId::from_segments(trust_domain.clone(), &["user", &user.to_string()])
        .expect("a hyphenated UUID is a valid path segment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("guildhall.internal").unwrap()
    }

    proptest! {
        #[test]
        fn a_workload_is_read_back_from_its_id(name in "[a-z0-9-]{1,63}", namespace in "[a-z0-9-]{1,20}") {
            let workload: Workload = name.parse().unwrap();
            let id = workload.spiffe_id(&domain(), &namespace).unwrap();
            let text = format!("spiffe://guildhall.internal/ns/{namespace}/sa/{name}");
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!(Workload::of(&id, &namespace), Some(workload.clone()));
            let elsewhere = format!("{namespace}x");
            prop_assert_eq!(Workload::of(&id, &elsewhere), None);
        }

        #[test]
        fn only_the_exact_shape_names_a_workload(path in "(/[A-Za-z0-9._-]{1,9}){0,6}") {
            let Ok(id) = SpiffeId::new(format!("spiffe://guildhall.internal{path}")) else { return Ok(()) };
            if let Some(workload) = Workload::of(&id, "guildhall") {
                prop_assert_eq!(id.path(), format!("/ns/guildhall/sa/{workload}"));
            }
        }

        #[test]
        fn any_text_is_a_workload_or_refused(text in ".*") {
            if let Ok(workload) = text.parse::<Workload>() {
                prop_assert_eq!(workload.to_string(), text);
            }
        }
    }

    #[test]
    fn a_person_is_never_a_workload() {
        let person = user_spiffe_id(&domain(), ids::Source::system().id());
        assert!(person.path().starts_with("/user/"));
        assert_eq!(Workload::of(&person, "guildhall"), None);
        assert_eq!(Workload::of(&person, "user"), None);
    }

    #[test]
    fn longer_and_shorter_paths_name_no_workload() {
        for path in
            ["/ns/guildhall/sa/content/x", "/ns/guildhall/sa", "/x/ns/guildhall/sa/content", "/sa/guildhall/ns/content"]
        {
            let id = SpiffeId::new(format!("spiffe://guildhall.internal{path}")).unwrap();
            assert_eq!(Workload::of(&id, "guildhall"), None, "{path}");
        }
    }
}
