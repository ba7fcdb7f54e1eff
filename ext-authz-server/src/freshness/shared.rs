//! What replicas have in common: one of them mints, the others take what it made.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Digest, Key, MintError};
use crate::credential::Material;
use crate::plan::Pending;

/// How long after a replica died with the right to mint another one takes over. While it mints, it asks for more time.
const LEASE: Duration = Duration::from_secs(5);
/// How often a waiting replica looks.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer a shared value must be good to be taken over.
const LEFT: Duration = Duration::from_secs(45);

/// The store that replicas share. It seals what it keeps. Errors are for the operator and hold no value.
pub trait Shared: Send + Sync {
    /// What a replica has put there under this key, if it has not expired.
    fn take<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Material>, String>>;

    /// How many invalidations there have been.
    fn mark(&self) -> Pending<'_, Result<i64, String>>;

    /// Puts a value there for the others, until it expires, unless what it was made of was invalidated after `mark`. Whether
    /// it is there now.
    fn put<'a>(&'a self, key: &'a Key, material: &'a Material, mark: i64) -> Pending<'a, Result<bool, String>>;

    /// Asks for the right to mint this key for `duration`; false while another replica has it.
    fn lease<'a>(&'a self, key: &'a Digest, duration: Duration) -> Pending<'a, Result<bool, String>>;

    /// Gives the right back.
    fn release<'a>(&'a self, key: &'a Digest) -> Pending<'a, Result<(), String>>;
}

/// Mints once among all replicas; `before` is what this one has and wants to replace. A shared store that fails does not
/// keep this one from minting for itself.
pub(super) async fn once(
    shared: &dyn Shared,
    key: &Key,
    before: Option<&Material>,
    mint: impl Future<Output = Result<Material, MintError>>,
    is_wanted: impl Fn() -> bool,
    taken_over: &AtomicU64,
) -> Result<Material, MintError> {
    let digest = key.digest();
    let failed = |what: &str, error: String| tracing::warn!(%digest, %error, "the shared store could not {what}");
    let is_better =
        |material: &Material| is_good(material) && !before.is_some_and(|before| before.same_values(material));
    // Before anything is read that the value is made of.
    let mark = match shared.mark().await {
        Ok(mark) => mark,
        Err(error) => {
            failed("be read", error);
            return mint.await;
        }
    };
    let mut leased = false;
    // Looks once more with the lease in hand: its last holder may just have put a value there.
    loop {
        match shared.take(key).await {
            Ok(Some(material)) if is_better(&material) => {
                if leased {
                    let _ = shared.release(&digest).await;
                }
                taken_over.fetch_add(1, Ordering::Relaxed);
                return Ok(material);
            }
            Ok(_) => {}
            Err(error) => {
                failed("be read", error);
                return mint.await;
            }
        }
        if leased {
            break;
        }
        match shared.lease(&digest, LEASE).await {
            Ok(true) => leased = true,
            Ok(false) => tokio::time::sleep(LOOK).await,
            Err(error) => {
                failed("give a lease", error);
                return mint.await;
            }
        }
    }
    let mut mint = std::pin::pin!(mint);
    let mut result = loop {
        match tokio::time::timeout(LEASE / 2, &mut mint).await {
            Ok(result) => break result,
            Err(_) => {
                let _ = shared.lease(&digest, LEASE).await;
            }
        }
    };
    // What was revoked while it was minted is not put back for the others.
    if let Ok(material) = &result
        && is_wanted()
    {
        match shared.put(key, material, mark).await {
            Ok(true) => {}
            Ok(false) => result = Err(MintError::outrun()),
            Err(error) => failed("take a value", error),
        }
    }
    if let Err(error) = shared.release(&digest).await {
        failed("end a lease", error);
    }
    result
}

fn is_good(material: &Material) -> bool {
    material.expires().is_some_and(|end| end > SystemTime::now() + LEFT)
}
