//! Mints are counted: how many are made for how many calls, in which order, and what serves when one fails.

use std::sync::atomic::AtomicUsize;

use super::*;

/// Makes materials that are good for `life`, and counts them.
#[derive(Clone)]
struct Mint {
    made: Arc<AtomicUsize>,
    life: Duration,
    takes: Duration,
    fails: Option<MintErrorKind>,
}

impl Mint {
    fn new(life_secs: u64) -> Mint {
        let life = Duration::from_secs(life_secs);
        Mint { made: Arc::default(), life, takes: Duration::ZERO, fails: None }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    fn run(&self) -> Minting {
        let mint = self.clone();
        Box::pin(async move {
            tokio::time::sleep(mint.takes).await;
            let number = mint.made.fetch_add(1, Ordering::SeqCst) + 1;
            match mint.fails {
                Some(kind) => Err(MintError { kind, cause: format!("attempt {number}") }),
                None => Ok(Material::new()
                    .secret("token", format!("minted-{number}").into_bytes())
                    .until(SystemTime::now() + mint.life)),
            }
        })
    }
}

fn key(name: &str) -> Key {
    Key::new("test", "tenant").with("name", name)
}

async fn token(freshness: &Arc<Freshness>, mint: &Mint) -> Result<String, MintError> {
    let material = freshness.get(key("one"), Terms::Minted, || mint.run()).await?;
    Ok(material.text("token").unwrap_or_default().to_owned())
}

/// Moves the times of the one entry into the past.
fn age(freshness: &Freshness, by: Duration) {
    for entry in freshness.lock().values_mut() {
        if let Some(current) = &mut entry.current {
            current.times.refresh_at = current.times.refresh_at.checked_sub(by).unwrap();
            current.times.overdue_at = current.times.overdue_at.checked_sub(by).unwrap();
            current.times.usable_until = current.times.usable_until.checked_sub(by).unwrap();
        }
        for (_, until) in &mut entry.retired {
            *until = until.checked_sub(by).unwrap();
        }
        if let Some(failure) = &mut entry.failure {
            failure.until = failure.until.checked_sub(by).unwrap();
        }
        entry.refused_at = entry.refused_at.map(|at| at.checked_sub(by).unwrap());
    }
}

/// Nothing that was replaced need be scrubbed any more.
fn age_retired(freshness: &Freshness) {
    let now = Instant::now();
    freshness.lock().values_mut().flat_map(|entry| &mut entry.retired).for_each(|(_, until)| *until = now);
}

/// How many calls waited for a mint.
fn waited(freshness: &Freshness) -> u64 {
    freshness.counts().waited.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_first_calls_make_one_mint() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint { takes: Duration::from_millis(100), ..Mint::new(3600) };
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let (freshness, mint) = (freshness.clone(), mint.clone());
            tokio::spawn(async move { token(&freshness, &mint).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "minted-1");
    }
    assert_eq!(mint.made(), 1);
}

#[tokio::test]
async fn mints_that_need_what_a_store_holds_do_not_keep_each_other_from_it() {
    let (freshness, stored) = (Arc::<Freshness>::default(), Mint::new(600));
    let terms = Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(60) };
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..flights::MAX * 3 {
        let (outer, inner, stored) = (Arc::clone(&freshness), Arc::clone(&freshness), stored.clone());
        calls.spawn(async move {
            let mint = move || -> Minting {
                Box::pin(async move {
                    // All of them are under way before the first one asks.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    inner.get(key("stored"), terms, || stored.run()).await.map(|material| (*material).clone())
                })
            };
            outer.get(key(&number.to_string()), Terms::Minted, mint).await.map(drop)
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(3), calls.join_all()).await.unwrap();
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(stored.made(), 1);
}

#[tokio::test]
async fn a_source_that_hangs_keeps_nobody_from_the_others() {
    let freshness = Arc::<Freshness>::default();
    let of = |issuer: &str, name: String| Key::new("test", "tenant").with("issuer", issuer).with("principal", name);
    for number in 0..flights::MAX * 2 {
        let (freshness, key) = (freshness.clone(), of("hangs", number.to_string()));
        tokio::spawn(async move { freshness.get(key, Terms::Minted, || Box::pin(std::future::pending())).await });
    }
    while freshness.len() < flights::MAX * 2 {
        tokio::task::yield_now().await;
    }
    let mint = Mint::new(600);
    let answer = freshness.get(of("answers", "alice".into()), Terms::Minted, || mint.run()).await;
    assert_eq!(answer.unwrap().text("token"), Some("minted-1"));
}

#[tokio::test]
async fn a_value_is_renewed_ahead_without_a_wait_and_never_used_past_its_end() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint::new(600);
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-1");
    // Between renewal and end: the old value serves at once, and one renewal runs.
    age(&freshness, Duration::from_secs(500));
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-1");
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-2");
    assert_eq!((mint.made(), waited(&freshness)), (2, 1), "only the first call waited");
    // Past its end: the call waits for a new one; where there is none, it fails.
    age(&freshness, Duration::from_secs(600));
    let broken = Mint { fails: Some(MintErrorKind::Transient), ..Mint::new(600) };
    assert_eq!(token(&freshness, &broken).await.unwrap_err().cause, "attempt 1");
    age(&freshness, Duration::from_secs(2));
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-3");
}

#[tokio::test]
async fn a_failure_is_remembered_and_a_usable_value_serves_meanwhile() {
    let freshness = Arc::new(Freshness::default());
    let broken = Mint { fails: Some(MintErrorKind::Transient), ..Mint::new(600) };
    for _ in 0..50 {
        assert_eq!(token(&freshness, &broken).await.unwrap_err().cause, "attempt 1");
    }
    assert_eq!(broken.made(), 1);
    age(&freshness, Duration::from_secs(2));
    let mint = Mint::new(600);
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-1");
    age(&freshness, Duration::from_secs(500));
    for _ in 0..50 {
        assert_eq!(token(&freshness, &broken).await.unwrap(), "minted-1");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(broken.made(), 2, "a failed renewal is not tried again at once");
}

#[tokio::test]
async fn what_a_store_says_is_gone_does_not_serve_any_more_and_an_outage_is_bridged() {
    let terms = Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(300) };
    for (kind, serves) in [(MintErrorKind::Transient, true), (MintErrorKind::Rejected, false)] {
        let freshness = Arc::new(Freshness::default());
        let (mint, broken) = (Mint::new(3600), Mint { fails: Some(kind), ..Mint::new(3600) });
        let get = |mint: &Mint| {
            let (freshness, mint) = (freshness.clone(), mint.clone());
            async move { freshness.get(key("one"), terms, || mint.run()).await }
        };
        get(&mint).await.unwrap();
        age(&freshness, Duration::from_secs(66));
        // The first call waits for what the store says now.
        assert_eq!(get(&broken).await.is_ok(), serves, "{kind:?}");
        // At the end of the bridge nothing serves.
        age(&freshness, Duration::from_secs(235));
        assert!(get(&broken).await.is_err());
    }
}

#[tokio::test]
async fn after_a_pause_the_first_call_gets_what_the_store_holds_now() {
    let terms = Terms::Stored { refresh: Duration::from_secs(10), max_stale: Duration::from_secs(300) };
    let freshness = Arc::new(Freshness::default());
    let (mint, hangs) = (Mint::new(3600), Mint { takes: Duration::from_secs(3600), ..Mint::new(3600) });
    let get = async |mint: &Mint| {
        let material = freshness.get(key("one"), terms, || mint.run()).await?;
        Ok::<_, MintError>(material.text("token").unwrap_or_default().to_owned())
    };
    get(&mint).await.unwrap();
    // Calls that follow each other are served while the store is asked in the background.
    age(&freshness, Duration::from_secs(11));
    assert_eq!(get(&mint).await.unwrap(), "minted-1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((get(&mint).await.unwrap().as_str(), waited(&freshness)), ("minted-2", 1));
    // After a pause nobody gets the value of before it.
    age(&freshness, Duration::from_secs(200));
    assert_eq!((get(&mint).await.unwrap().as_str(), waited(&freshness)), ("minted-3", 2));
    // A store that hangs is not waited for as long as a decision may take.
    age(&freshness, Duration::from_secs(200));
    let asked = Instant::now();
    assert_eq!(get(&hangs).await.unwrap(), "minted-3");
    assert!(asked.elapsed() < WAIT, "{:?}", asked.elapsed());
    // And not by every call: a decision may need more than one value.
    let waited_before = waited(&freshness);
    for _ in 0..3 {
        assert_eq!((get(&hangs).await.unwrap().as_str(), waited(&freshness)), ("minted-3", waited_before));
    }
}

#[tokio::test]
async fn what_may_be_another_value_by_now_is_looked_at_by_the_next_call() {
    let terms = Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(300) };
    let get = async |freshness: &Arc<Freshness>, mint: &Mint| {
        let material = freshness.get(key("one"), terms, || mint.run()).await?;
        Ok::<_, MintError>(material.text("token").unwrap_or_default().to_owned())
    };
    for (kind, serves) in [(None, "minted-2"), (Some(MintErrorKind::Transient), "minted-1")] {
        let freshness = Arc::new(Freshness::default());
        let mint = Mint::new(3600);
        get(&freshness, &mint).await.unwrap();
        assert_eq!(freshness.outdate(&[("name", "other")]), 0);
        assert_eq!(get(&freshness, &mint).await.unwrap(), "minted-1");
        assert_eq!(freshness.outdate(&[("name", "one")]), 1);
        let next = Mint { fails: kind, ..mint.clone() };
        assert_eq!(get(&freshness, &next).await.unwrap(), serves, "{kind:?}");
    }
    // What was being read when that was said is looked at again.
    let freshness = Arc::new(Freshness::default());
    let mint = Mint { takes: Duration::from_millis(50), ..Mint::new(3600) };
    let waiting = tokio::spawn({
        let (freshness, mint) = (freshness.clone(), mint.clone());
        async move { freshness.get(key("one"), terms, || mint.run()).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(freshness.outdate(&[("name", "one")]), 1);
    waiting.await.unwrap().unwrap();
    assert_eq!(get(&freshness, &mint).await.unwrap(), "minted-2");
}

#[tokio::test]
async fn what_is_of_no_use_is_swept_once_it_need_not_be_scrubbed() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint::new(600);
    token(&freshness, &mint).await.unwrap();
    assert_eq!((freshness.sweep(), freshness.len()), (0, 1), "what serves stays");
    age(&freshness, Duration::from_secs(600));
    // Nobody gets it any more; an upstream may still show it.
    assert_eq!((freshness.sweep(), freshness.len()), (0, 1));
    let next = freshness.get(key("one"), Terms::Minted, || mint.run()).await.unwrap();
    assert!(next.scrub().contains(&&b"minted-1"[..]));
    drop(next);
    // Meanwhile in use again: the one before goes alone.
    age_retired(&freshness);
    freshness.sweep();
    let next = freshness.get(key("one"), Terms::Minted, || mint.run()).await.unwrap();
    assert_eq!(next.scrub(), [b"minted-2"]);
    age(&freshness, Duration::from_secs(600));
    freshness.sweep();
    age_retired(&freshness);
    assert_eq!((freshness.sweep(), freshness.len()), (1, 0), "nothing of it is left");
    // What slows down attempts outlasts them.
    let broken = Mint { fails: Some(MintErrorKind::Rejected), ..Mint::new(600) };
    token(&freshness, &broken).await.unwrap_err();
    assert_eq!((freshness.sweep(), freshness.len()), (0, 1));
    age(&freshness, Duration::from_secs(70));
    assert_eq!((freshness.sweep(), freshness.len()), (1, 0));
}

#[tokio::test]
async fn a_missing_grant_is_looked_for_at_every_call() {
    let freshness = Arc::new(Freshness::default());
    let missing = Mint { fails: Some(MintErrorKind::Consent), ..Mint::new(600) };
    for attempt in 1..4 {
        assert_eq!(token(&freshness, &missing).await.unwrap_err().cause, format!("attempt {attempt}"));
    }
    assert_eq!(token(&freshness, &Mint::new(600)).await.unwrap(), "minted-1");
}

#[tokio::test]
async fn a_refused_value_is_had_anew_but_not_as_often_as_an_agent_likes() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint::new(3600);
    let get = || freshness.get(key("one"), Terms::Minted, || mint.run());
    let first = get().await.unwrap();
    assert!(freshness.refused(&first.origins()[0]));
    let second = get().await.unwrap();
    assert_eq!(second.text("token"), Some("minted-2"));
    assert!(second.scrub().contains(&&b"minted-1"[..]), "the refused value is still scrubbed");
    // The old one's refusals say nothing of the new one, and the new one's are not listened to so soon.
    assert!(!freshness.refused(&first.origins()[0]));
    for _ in 0..100 {
        assert!(!freshness.refused(&second.origins()[0]));
        assert_eq!(get().await.unwrap().text("token"), Some("minted-2"));
    }
    age(&freshness, Duration::from_secs(6));
    assert!(freshness.refused(&second.origins()[0]));
    // Where no other can be had, the refused one serves.
    let broken = Mint { fails: Some(MintErrorKind::Transient), ..Mint::new(600) };
    assert_eq!(token(&freshness, &broken).await.unwrap(), "minted-2");
}

#[tokio::test]
async fn a_revoked_value_serves_nobody_not_even_who_waits() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint::new(3600);
    assert_eq!(token(&freshness, &mint).await.unwrap(), "minted-1");
    assert_eq!(freshness.forget(&[("tenant", "other")]), 0);
    assert_eq!(freshness.forget(&[("tenant", "tenant"), ("name", "one")]), 1);
    let slow = Mint { takes: Duration::from_millis(50), ..mint.clone() };
    let waiting = tokio::spawn({
        let freshness = freshness.clone();
        async move { token(&freshness, &slow).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(freshness.forget(&[("tenant", "tenant")]), 1);
    assert!(waiting.await.unwrap().is_err());
    assert!(freshness.is_empty());
}

#[tokio::test]
async fn a_mint_from_before_a_revocation_is_not_taken_by_a_call_after_it() {
    let freshness = Arc::new(Freshness::default());
    let (before, after) = (Mint::new(3600), Mint::new(3600));
    let slow = Mint { takes: Duration::from_millis(60), ..before.clone() };
    let waiting = tokio::spawn({
        let freshness = freshness.clone();
        async move { token(&freshness, &slow).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    freshness.forget(&[("tenant", "tenant")]);
    // Another call makes a new entry of the same key while the old mint is still under way.
    let late = Mint { takes: Duration::from_millis(150), ..after.clone() };
    assert_eq!(token(&freshness, &late).await.unwrap(), "minted-1");
    assert!(waiting.await.unwrap().is_err(), "a revoked mint was handed out");
    assert_eq!((before.made(), after.made()), (1, 1));
}

#[tokio::test]
async fn a_mint_that_panics_fails_those_who_wait_and_no_one_after() {
    let freshness = Arc::new(Freshness::default());
    let panics = || -> Minting { Box::pin(async { panic!("a mint's own fault") }) };
    assert!(freshness.get(key("one"), Terms::Minted, panics).await.is_err());
    age(&freshness, Duration::from_secs(2));
    assert_eq!(token(&freshness, &Mint::new(600)).await.unwrap(), "minted-1");
}

#[tokio::test]
async fn the_number_of_values_is_bounded_and_those_in_use_stay() {
    let freshness = Arc::new(Freshness::default());
    let mint = Mint::new(3600);
    for number in 0..CAPACITY + 100 {
        freshness.get(key(&number.to_string()), Terms::Minted, || mint.run()).await.unwrap();
        if number % 100 == 0 {
            freshness.get(key("0"), Terms::Minted, || mint.run()).await.unwrap();
        }
    }
    assert!(freshness.len() <= CAPACITY);
    let made = mint.made();
    freshness.get(key("0"), Terms::Minted, || mint.run()).await.unwrap();
    assert_eq!(mint.made(), made, "the one in use was thrown out");
}

#[tokio::test]
async fn what_had_expired_when_it_was_minted_is_never_used() {
    let freshness = Arc::new(Freshness::default());
    assert!(token(&freshness, &Mint::new(0)).await.is_err());
}

mod keys {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["principal", "binding", "scopes", "audience", "tags", "tenant"];

    proptest! {
        #[test]
        fn keys_are_equal_only_if_every_part_is(
            one in prop::collection::vec((0..NAMES.len(), "[a-b\0]{0,3}"), 0..5),
            two in prop::collection::vec((0..NAMES.len(), "[a-b\0]{0,3}"), 0..5),
            tenants in ("[a-b]{0,2}", "[a-b]{0,2}"),
        ) {
            let make = |tenant: &str, parts: &[(usize, String)]| {
                parts.iter().fold(Key::new("kind", tenant), |key, (name, value)| key.with(NAMES[*name], value.clone()))
            };
            let (first, second) = (make(&tenants.0, &one), make(&tenants.1, &two));
            prop_assert_eq!(tenants.0 == tenants.1 && one == two, first.digest() == second.digest());
        }
    }
}

mod replicas {
    use std::sync::Mutex;

    use super::*;
    use crate::plan::Pending;

    /// A shared store in memory, with one lease holder at a time.
    #[derive(Default)]
    struct Memory {
        values: Mutex<HashMap<Digest, Material>>,
        leases: Mutex<HashMap<Digest, (usize, Instant)>>,
        revoked: AtomicUsize,
    }

    /// One replica's way to it.
    struct Replica(Arc<Memory>, usize);

    impl Shared for Replica {
        fn take<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Material>, String>> {
            Box::pin(async { Ok(self.0.values.lock().unwrap().get(&key.digest()).cloned()) })
        }
        fn mark(&self) -> Pending<'_, Result<i64, String>> {
            Box::pin(async { Ok(self.0.revoked.load(Ordering::SeqCst) as i64) })
        }
        fn put<'a>(&'a self, key: &'a Key, material: &'a Material, mark: i64) -> Pending<'a, Result<bool, String>> {
            Box::pin(async move {
                let is_valid = self.0.revoked.load(Ordering::SeqCst) as i64 == mark;
                if is_valid {
                    self.0.values.lock().unwrap().insert(key.digest(), material.clone());
                }
                Ok(is_valid)
            })
        }
        fn lease<'a>(&'a self, key: &'a Digest, duration: Duration) -> Pending<'a, Result<bool, String>> {
            Box::pin(async move {
                let now = Instant::now();
                let mut leases = self.0.leases.lock().unwrap();
                let holder = leases.entry(*key).or_insert((self.1, now));
                if holder.0 != self.1 && now < holder.1 {
                    return Ok(false);
                }
                *holder = (self.1, now + duration);
                Ok(true)
            })
        }
        fn release<'a>(&'a self, key: &'a Digest) -> Pending<'a, Result<(), String>> {
            Box::pin(async {
                self.0.leases.lock().unwrap().remove(key);
                Ok(())
            })
        }
    }

    fn replica(memory: &Arc<Memory>, number: usize) -> Arc<Freshness> {
        let freshness = Arc::new(Freshness::default());
        freshness.share(Arc::new(Replica(memory.clone(), number)));
        freshness
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn several_replicas_make_one_mint() {
        let memory = Arc::new(Memory::default());
        let mint = Mint { takes: Duration::from_millis(200), ..Mint::new(3600) };
        let calls = (0..4).map(|number| {
            let (freshness, mint) = (replica(&memory, number), mint.clone());
            tokio::spawn(async move { token(&freshness, &mint).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().unwrap(), "minted-1");
        }
        assert_eq!(mint.made(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_mint_is_not_made_twice() {
        let memory = Arc::new(Memory::default());
        let mint = Mint { takes: Duration::from_millis(6500), ..Mint::new(3600) };
        let calls = (0..2).map(|number| {
            let (freshness, mint) = (replica(&memory, number), mint.clone());
            tokio::spawn(async move {
                // Nobody waits as long as that; the mint goes on.
                let _ = token(&freshness, &mint).await;
                tokio::time::sleep(Duration::from_secs(4)).await;
                token(&freshness, &mint).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().unwrap(), "minted-1");
        }
        assert_eq!(mint.made(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_that_died_with_the_lease_is_outlasted() {
        let memory = Arc::new(Memory::default());
        let until = Instant::now() + Duration::from_millis(500);
        memory.leases.lock().unwrap().insert(key("one").digest(), (99, until));
        let mint = Mint::new(3600);
        assert_eq!(token(&replica(&memory, 1), &mint).await.unwrap(), "minted-1");
        assert!(Instant::now() >= until);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_another_replica_revoked_meanwhile_serves_nobody() {
        let memory = Arc::new(Memory::default());
        let mint = Mint { takes: Duration::from_millis(200), ..Mint::new(3600) };
        let minting = {
            let (one, mint) = (replica(&memory, 1), mint.clone());
            tokio::spawn(async move { token(&one, &mint).await })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        memory.revoked.fetch_add(1, Ordering::SeqCst);
        let error = minting.await.unwrap().unwrap_err();
        assert!(error.cause.contains("revoked"), "{error}");
        assert!(memory.values.lock().unwrap().is_empty());
        assert_eq!(token(&replica(&memory, 2), &mint).await.unwrap(), "minted-2");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_upstream_refused_is_not_taken_over_again() {
        let memory = Arc::new(Memory::default());
        let (one, two) = (replica(&memory, 1), replica(&memory, 2));
        let mint = Mint::new(3600);
        token(&one, &mint).await.unwrap();
        let taken = two.get(key("one"), Terms::Minted, || mint.run()).await.unwrap();
        assert_eq!((mint.made(), taken.text("token")), (1, Some("minted-1")));
        assert!(two.refused(&taken.origins()[0]));
        assert_eq!(token(&two, &mint).await.unwrap(), "minted-2");
        // The first one hears of it when its own is refused, and then takes the second's.
        let old = one.get(key("one"), Terms::Minted, || mint.run()).await.unwrap();
        assert!(one.refused(&old.origins()[0]));
        assert_eq!(token(&one, &mint).await.unwrap(), "minted-2");
        assert_eq!(mint.made(), 2);
    }
}
