//! What a person may do on the platform.

use contracts::Role;

/// The roles that exist, lowest first; a role's place is its bit in [`Roles`].
const ALL: [Role; 4] = [Role::Member, Role::Moderator, Role::Operator, Role::Admin];

/// A set of roles. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

/// Why a set of roles cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Somebody without any role could not be told from nobody.
    #[error("at least one role is needed")]
    Empty,
    /// A bit that stands for no role.
    #[error("there is no such role")]
    Unknown,
}

impl Roles {
    /// What everybody starts with.
    pub const MEMBER: Self = Self(bit(Role::Member));
    /// What the first admin has.
    pub const ADMIN: Self = Self(bit(Role::Member) | bit(Role::Admin));

    /// The set of `roles`.
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Result<Self, Error> {
        Self::from_bits(roles.into_iter().fold(0, |bits, role| bits | i64::from(bit(role))))
    }

    /// The set that [`Self::bits`] wrote.
    pub fn from_bits(bits: i64) -> Result<Self, Error> {
        match bits {
            0 => Err(Error::Empty),
            1..16 => Ok(Self(u8::try_from(bits).expect("a number below 16 fits"))),
            _ => Err(Error::Unknown),
        }
    }

    /// One bit for each role: member 1, moderator 2, operator 4, admin 8.
    pub fn bits(self) -> i64 {
        self.0.into()
    }

    /// Whether `role` itself is in the set; that a higher one is does not count.
    pub fn contains(self, role: Role) -> bool {
        self.0 & bit(role) != 0
    }

    /// The roles of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        ALL.into_iter().filter(move |role| self.contains(*role))
    }

    /// The highest role; it includes all lower ones.
    pub fn highest(self) -> Role {
        self.iter().last().expect("a set of roles is never empty")
    }

    /// The names of the roles, lowest first.
    pub fn names(self) -> Vec<String> {
        self.iter().map(|role| role.as_str().to_owned()).collect()
    }
}

const fn bit(role: Role) -> u8 {
    match role {
        Role::Member => 1,
        Role::Moderator => 2,
        Role::Operator => 4,
        Role::Admin => 8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_and_names_give_the_same_set_back(bits in 1_i64..16) {
            let roles = Roles::from_bits(bits).unwrap();
            prop_assert_eq!(roles.bits(), bits);
            prop_assert_eq!(Roles::new(roles.names().iter().map(|name| name.parse().unwrap())).unwrap(), roles);
            prop_assert!(roles.iter().all(|role| role <= roles.highest()));
        }
    }

    #[test]
    fn a_set_without_roles_or_with_unknown_ones_does_not_exist() {
        assert_eq!(Roles::new([]), Err(Error::Empty));
        assert_eq!(Roles::from_bits(16), Err(Error::Unknown));
        assert_eq!(Roles::from_bits(-1), Err(Error::Unknown));
    }
}
