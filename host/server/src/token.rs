//! Tokens: `ms_<id>_<secret>`. The id finds the entry of the catalogue, which holds a hash of the secret (256 random bits, so a plain SHA-256 is
//! enough), and the two are compared in constant time. Nothing is remembered between requests: a revoked token is worth nothing at once.

use std::collections::BTreeSet;

use millstream_model::{ErrorKind, ids::TenantId};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    catalogue::{
        Expected, Kind, Store,
        objects::{Scope, Token},
    },
    failure::Failure,
    random,
    text::hexadecimal,
};

const PREFIX: &str = "ms";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Whose objects they are.
    pub tenant: TenantId,
    /// The id of the token.
    pub token: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
}

impl Actor {
    /// Whether the token allows what needs `needed`.
    pub fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.allows(needed))
    }
}

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is for.
    pub label: String,
    /// What it allows; at least one.
    pub scopes: BTreeSet<Scope>,
    /// From when on it is worth nothing, ms since epoch.
    pub expires_ms: Option<i64>,
}

/// A token that was made: its id, and what its owner must keep, which is nowhere else.
pub struct Made {
    /// Its id.
    pub id: String,
    /// The whole of it.
    pub text: String,
    /// What the catalogue holds.
    pub token: Token,
}

/// Makes a token.
///
/// # Errors
/// There is no randomness, or the catalogue does not take it.
pub async fn make(store: &Store, tenant: &TenantId, wanted: Wanted, now_ms: i64) -> Result<Made, Failure> {
    let id = hexadecimal(&random::secret::<8>()?);
    let secret = hexadecimal(&random::secret::<32>()?);
    let Wanted { label, scopes, expires_ms } = wanted;
    let token = Token { label, sha256: hashed(&secret), scopes, created_ms: now_ms, expires_ms, revoked_ms: None };
    store.put(tenant, &id, &token, Expected::Absent).await?;
    Ok(Made { text: format!("{PREFIX}_{id}_{secret}"), id, token })
}

/// Who holds `text`; none: nobody, or nobody any more.
///
/// # Errors
/// The catalogue does not answer.
pub async fn holder(store: &Store, text: &str, now_ms: i64) -> Result<Option<Actor>, Failure> {
    let mut parts = text.split('_');
    let (Some(PREFIX), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Ok(None) };
    for tenant in store.owners(Kind::Token, id).await? {
        let Some(found) = store.get::<Token>(&tenant, id).await? else { continue };
        let is_it: bool = hashed(secret).as_bytes().ct_eq(found.object.sha256.as_bytes()).into();
        return Ok((is_it && holds(&found.object, now_ms)).then(|| Actor { tenant, token: id.to_owned(), scopes: found.object.scopes }));
    }
    Ok(None)
}

/// Whether a token is still worth something.
pub fn holds(token: &Token, now_ms: i64) -> bool {
    token.revoked_ms.is_none() && token.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
}

/// Revokes a token.
///
/// # Errors
/// There is none, or the catalogue does not answer.
pub async fn revoke(store: &Store, tenant: &TenantId, id: &str, now_ms: i64) -> Result<Token, Failure> {
    let Some(found) = store.get::<Token>(tenant, id).await? else {
        return Err(Failure::new(ErrorKind::NotFound, format!("there is no token `{id}`")).fix("`GET /v1/tokens` lists them"));
    };
    let token = Token { revoked_ms: found.object.revoked_ms.or(Some(now_ms)), ..found.object };
    store.put(tenant, id, &token, Expected::At(found.revision)).await?;
    Ok(token)
}

fn hashed(secret: &str) -> String {
    hexadecimal(&Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalogue::LocalCatalogue;

    fn wanted(scopes: impl IntoIterator<Item = Scope>, expires_ms: Option<i64>) -> Wanted {
        Wanted { label: "test".into(), scopes: scopes.into_iter().collect(), expires_ms }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let catalogue = LocalCatalogue::open(directory.path()).expect("a catalogue");
        (directory, Store::new(Arc::new(catalogue)))
    }

    #[tokio::test]
    async fn only_the_whole_secret_is_a_token_and_it_is_stored_nowhere() {
        let (directory, store) = store();
        let made = make(&store, &TenantId::local(), wanted([Scope::View], None), 1).await.expect("made");
        let actor = holder(&store, &made.text, 2).await.expect("readable").expect("good");
        assert_eq!(actor.token, made.id);
        let mut wrong = made.text.clone();
        wrong.replace_range(wrong.len() - 1.., if wrong.ends_with('0') { "1" } else { "0" });
        for text in [wrong.as_str(), "", "ms", "ms_", &made.text[..made.text.len() - 1], &format!("{}_", made.text), "ms_x_y"] {
            assert_eq!(holder(&store, text, 2).await.expect("readable"), None, "{text}");
        }
        let secret = made.text.rsplit('_').next().expect("has one");
        let written = std::fs::read_to_string(directory.path().join("catalogue.log")).expect("readable");
        assert!(!written.contains(secret));
    }

    #[tokio::test]
    async fn an_expired_and_a_revoked_token_are_worth_nothing() {
        let (_directory, store) = store();
        let made = make(&store, &TenantId::local(), wanted([Scope::View], Some(10)), 1).await.expect("made");
        assert!(holder(&store, &made.text, 9).await.expect("readable").is_some());
        assert_eq!(holder(&store, &made.text, 10).await.expect("readable"), None);
        let made = make(&store, &TenantId::local(), wanted([Scope::View], None), 1).await.expect("made");
        revoke(&store, &TenantId::local(), &made.id, 2).await.expect("revoked");
        assert_eq!(holder(&store, &made.text, 3).await.expect("readable"), None);
    }

    #[test]
    fn admin_allows_everything_in_its_tenant_and_every_scope_allows_to_look() {
        let allowed: Vec<(Scope, Vec<Scope>)> =
            Scope::ALL.into_iter().map(|has| (has, Scope::ALL.into_iter().filter(|&needed| has.allows(needed)).collect())).collect();
        assert_eq!(
            allowed,
            [
                (Scope::View, vec![Scope::View]),
                (Scope::Operate, vec![Scope::View, Scope::Operate]),
                (Scope::Deploy, vec![Scope::View, Scope::Deploy]),
                (Scope::Admin, vec![Scope::View, Scope::Operate, Scope::Deploy, Scope::Admin]),
                (Scope::Host, vec![Scope::View, Scope::Host]),
            ]
        );
    }
}
