//! One key's value: which serves, what it replaced, and what a call for it has to do.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::times::{self, Times};
use super::{
    Digest, Key, MAX_REFUSALS, MINT_TIMEOUT, MintError, MintErrorKind, OVERLAP, Origin, REFUSAL_HOLD, STALE_WAIT, Terms,
};
use crate::credential::Material;

/// The most replaced values that are kept for one key.
const MAX_RETIRED: usize = 4;

/// What came of a mint, once it has ended.
pub(super) type Landed = Option<Result<Arc<Material>, MintError>>;

/// A value, what it replaced, and how having it went lately.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) current: Option<Current>,
    pub(super) flight: Option<watch::Receiver<Landed>>,
    /// When the last mint began.
    pub(super) flown: Option<Instant>,
    pub(super) failure: Option<Failure>,
    pub(super) retired: Vec<(Arc<Material>, Instant)>,
    pub(super) refusals: u32,
    pub(super) refused_at: Option<Instant>,
    pub(super) version: u64,
    /// How often the value was said to be another one by now.
    pub(super) outdated: u64,
    pub(super) used: u64,
    /// What tells it from an entry of the same key that was there before it.
    pub(super) birth: u64,
}

/// The value in use.
pub(super) struct Current {
    pub(super) material: Arc<Material>,
    /// As it is handed out: with its origin and the values it replaced.
    pub(super) served: Arc<Material>,
    pub(super) times: Times,
    /// An upstream refused it: it serves only if there is no other.
    pub(super) suspect: bool,
}

/// Why there was no other, the last time.
pub(super) struct Failure {
    pub(super) error: MintError,
    pub(super) until: Instant,
    pub(super) count: u32,
}

/// What a call has to do.
pub(super) enum Step {
    Serve(Arc<Material>),
    /// Renew in the background and serve.
    Renew(Arc<Material>),
    Fly,
    Wait(watch::Receiver<Landed>),
    Fail(MintError),
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(key: Key, birth: u64) -> Entry {
        Entry {
            key,
            birth,
            current: None,
            flight: None,
            flown: None,
            failure: None,
            retired: Vec::new(),
            refusals: 0,
            refused_at: None,
            version: 0,
            outdated: 0,
            used: 0,
        }
    }

    pub(super) fn usable(&self, now: Instant) -> Option<Arc<Material>> {
        let current = self.current.as_ref().filter(|current| now < current.times.usable_until);
        current.map(|current| current.served.clone())
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.suspect)
    }

    /// Whether the value is not to be used before another look, because nobody knows whether it still is the one. Where a
    /// look failed a moment ago, or does not end, no other call waits.
    fn is_overdue(&self, now: Instant) -> bool {
        let failed_lately = self.failure.as_ref().is_some_and(|failure| now < failure.until + MINT_TIMEOUT);
        let hangs = self.flight.is_some() && self.flown.is_some_and(|began| now >= began + STALE_WAIT);
        !failed_lately && !hangs && self.current.as_ref().is_some_and(|current| now >= current.times.overdue_at)
    }

    pub(super) fn step(&self, now: Instant) -> Step {
        let usable = self.usable(now);
        let waits = self.is_suspect() || self.is_overdue(now);
        let backing_off = self.failure.as_ref().filter(|failure| now < failure.until);
        match (usable, &self.flight, backing_off) {
            (Some(material), _, Some(_)) => Step::Serve(material),
            (Some(material), Some(_), None) if !waits => Step::Serve(material),
            (Some(material), None, None) if !waits => {
                let due = self.current.as_ref().is_some_and(|current| now >= current.times.refresh_at);
                if due { Step::Renew(material) } else { Step::Serve(material) }
            }
            (_, Some(flight), _) => Step::Wait(flight.clone()),
            (None, None, Some(failure)) => Step::Fail(failure.error.clone()),
            (_, None, None) => Step::Fly,
        }
    }

    /// Takes a new value into use and retires the one before, where it was another.
    pub(super) fn take(
        &mut self,
        digest: Digest,
        material: Arc<Material>,
        terms: Terms,
        now: Instant,
    ) -> Arc<Material> {
        self.failure = None;
        self.retired.retain(|(_, until)| now < *until);
        if let Some(before) = self.current.take()
            && !before.material.same_values(&material)
        {
            self.retire(before.material, now);
        }
        self.version += 1;
        let served = self.serving(digest, &material);
        let times = Times::of(&material, terms, now);
        self.current = Some(Current { material, served: served.clone(), times, suspect: false });
        served
    }

    /// A material as it is handed out now.
    fn serving(&self, digest: Digest, material: &Material) -> Arc<Material> {
        let retired: Vec<Arc<Material>> = self.retired.iter().map(|(material, _)| material.clone()).collect();
        Arc::new(material.kept(Origin { digest, version: self.version }, &retired))
    }

    fn retire(&mut self, material: Arc<Material>, now: Instant) {
        self.retired.push((material, now + OVERLAP));
        let excess = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..excess);
    }

    pub(super) fn outdate(&mut self, now: Instant) {
        self.outdated += 1;
        self.failure = None;
        if let Some(current) = &mut self.current {
            current.times.refresh_at = now;
            current.times.overdue_at = now;
        }
    }

    /// Lets go of values: the one that serves nobody any more is scrubbed for a while yet, then it goes, too.
    pub(super) fn tidy(&mut self, digest: Digest, now: Instant) {
        let before = self.retired.len();
        self.retired.retain(|(_, until)| now < *until);
        if self.flight.is_none()
            && let Some(ended) = self.current.take_if(|current| now >= current.times.usable_until)
        {
            self.retire(ended.material, now);
        }
        if self.retired.len() == before {
            return;
        }
        let served = self.current.as_ref().map(|current| self.serving(digest, &current.material));
        if let (Some(current), Some(served)) = (&mut self.current, served) {
            current.served = served;
        }
    }

    /// Whether nothing is lost with it: no value, nothing to scrub, no failure or refusal that slows down the next attempt.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        let is_past = |until: Option<Instant>| until.is_none_or(|until| now >= until);
        self.flight.is_none()
            && self.current.is_none()
            && self.retired.is_empty()
            && is_past(self.failure.as_ref().map(|failure| failure.until + times::LONGEST_BACKOFF))
            && is_past(self.refused_at.map(|at| at + REFUSAL_HOLD * 2u32.pow(MAX_REFUSALS)))
    }

    /// Notes a failure. What was withdrawn does not serve any more: a grant, or a secret that its store says is gone. A
    /// minted value whose successor is refused is good until it says otherwise.
    pub(super) fn fail(&mut self, error: &MintError, terms: Terms, now: Instant) {
        let is_withdrawn = match error.kind {
            MintErrorKind::Consent => true,
            MintErrorKind::Rejected => terms != Terms::Minted,
            MintErrorKind::Transient | MintErrorKind::NeedsCaller | MintErrorKind::Outrun => false,
        };
        if is_withdrawn && let Some(current) = self.current.take() {
            self.retire(current.material, now);
        }
        if matches!(error.kind, MintErrorKind::Consent | MintErrorKind::NeedsCaller | MintErrorKind::Outrun) {
            self.failure = None;
            return;
        }
        let count = self.failure.as_ref().map_or(0, |failure| failure.count) + 1;
        self.failure = Some(Failure { error: error.clone(), until: now + times::backoff(count), count });
    }
}
