//! What a principal may do.

use ordersaga_api_key::Scope;

/// Scopes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub(super) fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether the scope is among them; `admin` stands for all.
    pub fn include(self, scope: Scope) -> bool {
        self.0 & (bit(scope) | bit(Scope::Admin)) != 0
    }

    /// Without one of them.
    pub(super) fn without(self, scope: Scope) -> Self {
        Self(self.0 & !bit(scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |all, scope| all | bit(scope)))
    }
}

const fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_stands_for_all_and_no_other_does() {
        for scope in Scope::ALL {
            let only: Scopes = [scope].into_iter().collect();
            for other in Scope::ALL {
                assert_eq!(only.include(other), scope == other || scope == Scope::Admin);
            }
            assert!(Scopes::all().include(scope));
            assert!(!Scopes::default().include(scope));
        }
        assert!(!Scopes::all().without(Scope::Admin).include(Scope::Admin));
    }
}
