use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;

use super::*;

fn key(byte: u8) -> Arc<dyn WrapKey> {
    Arc::new(LocalKey::parse(STANDARD.encode([byte; 32]).as_bytes()).unwrap())
}

async fn database() -> Database {
    Database::open("sqlite::memory:", 1).await.unwrap()
}

const HERE: Place<'static> = Place { scope: Scope::Tenant("acme"), table: "grants", row: "alice" };

#[tokio::test]
async fn a_value_opens_at_its_place_and_nowhere_else() {
    let sealer = Sealer::new(database().await, vec![key(1)]).unwrap();
    let sealed = sealer.seal(HERE, b"marked").await.unwrap();
    assert_eq!(sealer.open(HERE, &sealed).await.unwrap().as_slice(), b"marked");
    for elsewhere in [
        Place { scope: Scope::Tenant("other"), ..HERE },
        Place { scope: Scope::Server, ..HERE },
        Place { table: "secrets", ..HERE },
        Place { row: "bob", ..HERE },
    ] {
        assert!(matches!(sealer.open(elsewhere, &sealed).await, Err(SealError::Refused)), "{elsewhere:?}");
    }
}

#[tokio::test]
async fn two_seals_of_one_value_differ() {
    let sealer = Sealer::new(database().await, vec![key(1)]).unwrap();
    let (one, two) = (sealer.seal(HERE, b"marked").await.unwrap(), sealer.seal(HERE, b"marked").await.unwrap());
    assert_eq!(one.key_id, two.key_id);
    assert_ne!(one.text, two.text);
}

#[tokio::test]
async fn every_changed_bit_is_noticed() {
    let sealer = Sealer::new(database().await, vec![key(1)]).unwrap();
    let sealed = sealer.seal(HERE, b"marked").await.unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(&sealed.text).unwrap();
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let changed = Sealed { text: URL_SAFE_NO_PAD.encode(changed), ..sealed.clone() };
        assert!(matches!(sealer.open(HERE, &changed).await, Err(SealError::Refused)), "bit {at}");
    }
    for length in 0..bytes.len() {
        let cut = Sealed { text: URL_SAFE_NO_PAD.encode(&bytes[..length]), ..sealed.clone() };
        assert!(matches!(sealer.open(HERE, &cut).await, Err(SealError::Refused)), "{length} bytes");
    }
}

#[tokio::test]
async fn a_token_opens_for_its_use_only() {
    let sealer = Sealer::new(database().await, vec![key(1)]).unwrap();
    let token = sealer.token("ticket", b"marked").await.unwrap();
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{token}");
    assert_eq!(sealer.open_token("ticket", &token).await.unwrap().as_slice(), b"marked");
    assert!(sealer.open_token("state", &token).await.is_err());
    for hostile in ["", ".", "a.b", &token[1..], &token[..token.len() - 1], &format!("{token}A"), "' OR 1=1 --.AAAA"] {
        assert!(matches!(sealer.open_token("ticket", hostile).await, Err(SealError::Refused)), "{hostile}");
    }
}

#[tokio::test]
async fn a_new_key_encryption_key_wraps_anew_and_leaves_the_data_alone() {
    let database = database().await;
    let old = Sealer::new(database.clone(), vec![key(1)]).unwrap();
    let sealed = old.seal(HERE, b"marked").await.unwrap();
    old.token("ticket", b"x").await.unwrap();
    assert_eq!(old.rewrap().await.unwrap(), 0);

    // Without the old key nothing opens; with it, both keys of the two scopes are wrapped anew.
    let stranger = Sealer::new(database.clone(), vec![key(2)]).unwrap();
    assert!(matches!(stranger.open(HERE, &sealed).await, Err(SealError::UnknownWrapping(_))));
    assert!(matches!(stranger.rewrap().await, Err(SealError::UnknownWrapping(_))));
    let both = Sealer::new(database.clone(), vec![key(2), key(1)]).unwrap();
    assert_eq!(both.rewrap().await.unwrap(), 2);
    assert_eq!(both.rewrap().await.unwrap(), 0);

    // The new key alone opens what was sealed before, as it was sealed.
    let new = Sealer::new(database.clone(), vec![key(2)]).unwrap();
    assert_eq!(new.open(HERE, &sealed).await.unwrap().as_slice(), b"marked");
    assert_eq!(new.seal(HERE, b"more").await.unwrap().key_id, sealed.key_id);
    let gone = Sealer::new(database, vec![key(1)]).unwrap();
    assert!(matches!(gone.open(HERE, &sealed).await, Err(SealError::UnknownWrapping(_))));
}

#[tokio::test]
async fn keys_are_replaced_by_such_as_open_everything() {
    let database = database().await;
    let sealer = Sealer::new(database.clone(), vec![key(1)]).unwrap();
    let sealed = sealer.seal(HERE, b"marked").await.unwrap();
    assert!(matches!(sealer.replace(vec![key(2)]).await, Err(SealError::UnknownWrapping(_))), "too early");
    assert!(matches!(sealer.replace(Wrapping::default()).await, Err(SealError::NoKey)));
    assert_eq!(sealer.look().await.unwrap(), (1, 0), "those before are in use");
    sealer.replace(vec![key(2), key(1)]).await.unwrap();
    assert_eq!(sealer.look().await.unwrap(), (1, 1));
    assert_eq!(sealer.rewrap().await.unwrap(), 1);
    sealer.replace(vec![key(2)]).await.unwrap();
    let fresh = Sealer::new(database, vec![key(2)]).unwrap();
    assert_eq!(fresh.open(HERE, &sealed).await.unwrap().as_slice(), b"marked");
}

#[tokio::test]
async fn a_tenant_with_a_key_of_its_own_is_wrapped_by_no_other() {
    let database = database().await;
    let zeta = Place { scope: Scope::Tenant("zeta"), ..HERE };
    let own = |all: u8, acme: &[u8]| {
        let keys: Vec<_> = acme.iter().map(|byte| key(*byte)).collect();
        Wrapping::from(vec![key(all)]).with_tenant("acme", keys)
    };
    let before = Sealer::new(database.clone(), vec![key(1)]).unwrap();
    let (of_acme, of_zeta) = (before.seal(HERE, b"a").await.unwrap(), before.seal(zeta, b"z").await.unwrap());
    assert!(matches!(Sealer::of(database.clone(), own(1, &[])), Err(SealError::NoKey)));

    let sealer = Sealer::of(database.clone(), own(1, &[2])).unwrap();
    assert_eq!(sealer.look().await.unwrap(), (2, 1), "one of them is still under the key for all");
    assert_eq!(sealer.rewrap().await.unwrap(), 1);
    assert_eq!(sealer.open(HERE, &of_acme).await.unwrap().as_slice(), b"a");

    // Without its key nothing of this tenant opens, and everything else does.
    let shared = Sealer::new(database.clone(), vec![key(1)]).unwrap();
    assert!(matches!(shared.open(HERE, &of_acme).await, Err(SealError::UnknownWrapping(_))));
    assert_eq!(shared.open(zeta, &of_zeta).await.unwrap().as_slice(), b"z");
    assert!(matches!(sealer.replace(vec![key(1)]).await, Err(SealError::UnknownWrapping(_))));
    // The key of one tenant opens nothing of another.
    let swapped = Wrapping::from(vec![key(1)]).with_tenant("zeta", vec![key(2)]);
    let swapped = Sealer::of(database.clone(), swapped).unwrap();
    assert!(matches!(swapped.open(HERE, &of_acme).await, Err(SealError::UnknownWrapping(_))));

    // It is changed, and given up, like any other.
    sealer.replace(own(1, &[3, 2])).await.unwrap();
    assert_eq!(sealer.rewrap().await.unwrap(), 1);
    sealer.replace(own(1, &[1, 3])).await.unwrap();
    assert_eq!(sealer.rewrap().await.unwrap(), 1);
    let shared = Sealer::new(database, vec![key(1)]).unwrap();
    assert_eq!(shared.open(HERE, &of_acme).await.unwrap().as_slice(), b"a");
}

#[tokio::test]
async fn a_data_key_that_was_given_to_another_tenant_does_not_open() {
    let database = database().await;
    let sealer = Sealer::new(database.clone(), vec![key(1)]).unwrap();
    let sealed = sealer.seal(HERE, b"marked").await.unwrap();
    sqlx::query("UPDATE data_keys SET scope = 'tenant:mallory'").execute(database.pool()).await.unwrap();
    let fresh = Sealer::new(database, vec![key(1)]).unwrap();
    let place = Place { scope: Scope::Tenant("mallory"), ..HERE };
    assert!(matches!(fresh.open(place, &sealed).await, Err(SealError::Refused)));
}

#[test]
fn a_key_is_32_bytes_in_base64() {
    let good = STANDARD.encode([7; 32]);
    assert!(LocalKey::parse(format!(" {good}\n").as_bytes()).is_ok());
    let short = STANDARD.encode([7; 31]);
    for bad in ["", "key", &short, &good[1..], &STANDARD.encode([7; 33])] {
        assert!(matches!(LocalKey::parse(bad.as_bytes()), Err(SealError::Key)), "{bad}");
    }
    let ids = [key(1), key(2)];
    assert_ne!(ids[0].id(), ids[1].id());
    assert_eq!(key(1).id(), ids[0].id());
}
