//! The throttle stage: whether there were too many messages, before anything is spent on deciding about one more.
//!
//! Every rule that matches counts. A call that one of them denies uses up none of the others, so that nobody who is over a
//! limit of their own eats the limit of a tenant. What a counter is for is named by configuration and by who was recognised,
//! never by a text that a client makes up: its number is bounded by that of callers, and no new name evades a limit.

pub mod counters;
pub mod rate;

use std::sync::Arc;
use std::time::Duration;

use keyward_contract::reason::Reason;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::binding::Tools;
use crate::config::{ThrottlePer, ThrottleRule, ThrottleScope, Throttles, WhenFull, WhenUnavailable};
use crate::database::{DatabaseError, DatabaseThrottles, Taken};
use crate::decision::{Denial, Incident, Stage};
use crate::freshness::Digest;
use crate::identity::Principal;
use crate::operation::Operation;
use counters::{Counters, Refusal, Wanted};
use rate::{Exhausted, Rate};

/// How long the database may take to count.
const SHARED_TIMEOUT: Duration = Duration::from_millis(500);
/// How many statements may be under way in the database at once.
const MAX_ASKING: usize = 256;

/// The rules of a configuration, and the counters, which outlive it.
#[derive(Clone)]
pub struct Throttle {
    rules: Arc<[Rule]>,
    max_counters: usize,
    when_full: WhenFull,
    when_unavailable: WhenUnavailable,
    counters: Arc<Counters>,
    asking: Arc<Semaphore>,
}

/// What rules look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The host, as the destination that matched names it.
    pub host: &'a str,
    /// The server entry.
    pub server: &'a str,
    /// What is asked.
    pub operations: &'a [Operation<'a>],
}

/// Why a call does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("throttle rule `{rule}`: {cause}")]
pub struct Refused {
    rule: Arc<str>,
    cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Cause {
    #[error("more than {limit} in {window_secs} s; {count} of this request pass in {} s", wait.retry_after_secs())]
    Exhausted { limit: u32, window_secs: u32, count: u32, wait: Exhausted },
    #[error("there is no place for one more counter (`throttles.max_counters`)")]
    Full,
    #[error("the database that counts does not answer: {0}")]
    Unavailable(String),
}

/// A rule, ready to match.
struct Rule {
    name: Arc<str>,
    per: Vec<ThrottlePer>,
    limit: u32,
    window_secs: u32,
    rate: Rate,
    servers: Option<Vec<String>>,
    /// Each entry of `tools` with the patterns that it stands for.
    tools: Option<Vec<(String, Tools)>>,
    scope: ThrottleScope,
    /// What every counter of this rule begins with.
    prefix: Sha256,
}

// === impl Throttle ===

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            rules: Arc::default(),
            max_counters: 0,
            when_full: WhenFull::default(),
            when_unavailable: WhenUnavailable::default(),
            counters: Arc::default(),
            asking: Arc::new(Semaphore::new(MAX_ASKING)),
        }
    }
}

impl Throttle {
    /// The rules of this environment.
    #[must_use]
    pub fn new(configured: &Throttles, environment: &str) -> Throttle {
        Throttle {
            rules: configured.rules.iter().map(|rule| Rule::new(rule, environment)).collect(),
            max_counters: configured.max_counters,
            when_full: configured.when_full,
            when_unavailable: configured.when_unavailable,
            ..Throttle::default()
        }
    }

    /// The same rules, which go on with the counters of others.
    #[must_use]
    pub fn continuing(self, others: &Throttle) -> Throttle {
        Throttle { counters: others.counters.clone(), asking: others.asking.clone(), ..self }
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many counters are kept.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Counts a request under every rule that matches, or under none. `shared` is where replicas count together, once it is
    /// open.
    ///
    /// # Errors
    /// A rule that is used up, or that cannot count.
    pub async fn take(&self, facts: &Facts<'_>, shared: Option<&DatabaseThrottles>) -> Result<(), Refused> {
        let all: Vec<(&Rule, Wanted)> = self.rules.iter().flat_map(|rule| rule.wanted(facts)).collect();
        let (here, together): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(rule, _)| rule.scope == ThrottleScope::Replica);
        // Who was told to wait is told so again, and the database is not asked.
        for (rule, want) in &together {
            let ahead = self.counters.ahead(&until(&want.id), self.counters.now_ns());
            if let Some(wait_ns) = ahead {
                let wait_ns = wait_ns.saturating_add(want.rate.way_ns(want.count.saturating_sub(1)));
                return Err(rule.exhausted(want.count, Exhausted { wait_ns }));
            }
        }
        self.take_here(&here)?;
        let mut counted_here: Vec<Wanted> = here.iter().map(|(_, want)| *want).collect();
        let mut counted_together = Vec::new();
        for (rule, want) in &together {
            match self.take_together(rule, want, shared).await {
                Ok(true) => counted_together.push(*want),
                Ok(false) => counted_here.push(*want),
                Err(refused) => {
                    self.give_back(&counted_here, &counted_together, shared).await;
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    fn take_here(&self, wanted: &[(&Rule, Wanted)]) -> Result<(), Refused> {
        if wanted.is_empty() {
            return Ok(());
        }
        let bare: Vec<Wanted> = wanted.iter().map(|(_, want)| *want).collect();
        let lenient = self.when_full == WhenFull::Allow;
        let taken = self.counters.take(&bare, self.counters.now_ns(), self.max_counters, lenient);
        let refused = |position: usize| wanted.get(position).copied();
        match taken {
            Ok(()) => Ok(()),
            Err(Refusal::Exhausted(position, wait)) => {
                Err(refused(position).map_or_else(Refused::nowhere, |(rule, want)| rule.exhausted(want.count, wait)))
            }
            Err(Refusal::Full(position)) => {
                Err(refused(position).map_or_else(Refused::nowhere, |(rule, _)| rule.refused(Cause::Full)))
            }
        }
    }

    /// Whether the database counted it; otherwise this server alone did.
    async fn take_together(
        &self,
        rule: &Rule,
        want: &Wanted,
        shared: Option<&DatabaseThrottles>,
    ) -> Result<bool, Refused> {
        let taken = match shared.cloned() {
            Some(shared) => {
                let want = *want;
                self.asked(async move { shared.take(&want.id.to_string(), &want.rate, want.count).await }).await
            }
            None => Err("it is not open".to_owned()),
        };
        match taken {
            Ok(Taken::Passed) => Ok(true),
            Ok(Taken::Exhausted(wait)) => {
                let now_ns = self.counters.now_ns();
                // For one call: a batch may have to wait longer than others of the same counter.
                let one = wait.wait_ns.saturating_sub(want.rate.way_ns(want.count.saturating_sub(1)));
                if one > 0 {
                    let until_ns = now_ns.saturating_add(one);
                    self.counters.note(until(&want.id), until_ns, now_ns, self.max_counters);
                }
                Err(rule.exhausted(want.count, wait))
            }
            Err(cause) if self.when_unavailable == WhenUnavailable::Local => {
                tracing::warn!(rule = &*rule.name, cause, "throttles are counted by this server alone");
                self.take_here(&[(rule, *want)]).map(|()| false)
            }
            Err(cause) => Err(rule.refused(Cause::Unavailable(cause))),
        }
    }

    /// A call that did not pass uses up nothing. Where the database does not answer now, it stays counted.
    async fn give_back(&self, here: &[Wanted], together: &[Wanted], shared: Option<&DatabaseThrottles>) {
        self.counters.give_back(here);
        let Some(shared) = shared else { return };
        for want in together {
            let (shared, want) = (shared.clone(), *want);
            let given = async move { shared.give_back(&want.id.to_string(), &want.rate, want.count).await };
            let _ = self.asked(given).await;
        }
    }

    /// Asks the database, for a while. A statement that takes longer is not cut off, which would spoil its connection; how many
    /// there may be is bounded.
    async fn asked<T: Send + 'static>(
        &self,
        statement: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, String> {
        let Ok(permit) = self.asking.clone().try_acquire_owned() else {
            return Err(format!("{MAX_ASKING} calls wait for it already"));
        };
        let asked = tokio::spawn(async move {
            let _permit = permit;
            statement.await
        });
        match tokio::time::timeout(SHARED_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err("the question ended by a panic".to_owned()),
            Err(_) => Err(format!("not within {} ms", SHARED_TIMEOUT.as_millis())),
        }
    }
}

/// Where it is noted until when a counter of the database passes nothing.
fn until(id: &Digest) -> Digest {
    let mut digest = Sha256::new();
    digest.update(b"until");
    digest.update(id.0);
    Digest(digest.finalize().into())
}

// === impl Rule ===

impl Rule {
    fn new(configured: &ThrottleRule, environment: &str) -> Rule {
        let mut prefix = Sha256::new();
        for part in ["keyward throttle 1", environment, &configured.name] {
            frame(&mut prefix, part);
        }
        let entry = |pattern: &String| (pattern.clone(), Tools::new(vec![pattern.clone()]));
        let burst = configured.burst.unwrap_or(configured.limit);
        Rule {
            name: configured.name.as_str().into(),
            per: configured.per.clone(),
            limit: configured.limit,
            window_secs: configured.window_secs,
            rate: Rate::new(configured.limit, configured.window_secs, burst),
            servers: configured.servers.clone(),
            tools: configured.tools.as_ref().map(|tools| tools.iter().map(entry).collect()),
            scope: configured.scope,
            prefix,
        }
    }

    /// The counters that a request moves on, each once.
    fn wanted<'a>(&'a self, facts: &Facts<'_>) -> Vec<(&'a Rule, Wanted)> {
        if self.servers.as_ref().is_some_and(|names| names.iter().all(|name| name != facts.server)) {
            return Vec::new();
        }
        let mut counted: Vec<(Option<&str>, u32)> = Vec::new();
        for operation in facts.operations {
            let tool = match &self.tools {
                None => None,
                Some(tools) => match tools.iter().find(|(_, tools)| tools.are_called_by(operation)) {
                    Some((pattern, _)) if self.per.contains(&ThrottlePer::Tool) => Some(pattern.as_str()),
                    Some(_) => None,
                    None => continue,
                },
            };
            match counted.iter_mut().find(|(own, _)| *own == tool) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => counted.push((tool, 1)),
            }
        }
        let wanted = |(tool, count)| (self, Wanted { id: self.id(facts, tool), rate: self.rate, count });
        counted.into_iter().map(wanted).collect()
    }

    /// SHA-256 over everything that has a counter of its own, each part framed by its length.
    fn id(&self, facts: &Facts<'_>, tool: Option<&str>) -> Digest {
        let mut digest = self.prefix.clone();
        let principal = facts.principal;
        for per in &self.per {
            let parts: [&str; 4] = match per {
                // Whatever agent it goes through: a new client is registered in no time.
                ThrottlePer::Principal => ["principal", &principal.tenant, &principal.issuer, &principal.subject],
                ThrottlePer::Agent => {
                    ["agent", &principal.tenant, &principal.issuer, principal.agent.as_deref().unwrap_or_default()]
                }
                ThrottlePer::Tenant => ["tenant", &principal.tenant, "", ""],
                ThrottlePer::Host => ["host", facts.host, "", ""],
                ThrottlePer::Server => ["server", facts.server, "", ""],
                ThrottlePer::Tool => ["tool", tool.unwrap_or_default(), "", ""],
            };
            for part in parts {
                frame(&mut digest, part);
            }
        }
        Digest(digest.finalize().into())
    }

    fn exhausted(&self, count: u32, wait: Exhausted) -> Refused {
        let (limit, window_secs) = (self.limit, self.window_secs);
        self.refused(Cause::Exhausted { limit, window_secs, count, wait })
    }

    fn refused(&self, cause: Cause) -> Refused {
        Refused { rule: self.name.clone(), cause }
    }
}

fn frame(digest: &mut Sha256, part: &str) {
    digest.update((part.len() as u64).to_be_bytes());
    digest.update(part);
}

// === impl Refused ===

impl Refused {
    /// No rule has the position that was refused, which no caller can bring about.
    fn nowhere() -> Refused {
        Refused { rule: "".into(), cause: Cause::Full }
    }

    /// The denial.
    #[must_use]
    pub fn denial(self) -> Denial {
        let text = self.to_string();
        let (reason, because) = match &self.cause {
            Cause::Exhausted { .. } => (Reason::Throttled, "limit"),
            Cause::Full => (Reason::Overloaded, "full"),
            Cause::Unavailable(_) => (Reason::DecisionUnavailable, "unavailable"),
        };
        let denial = Denial::new(Stage::Throttle, reason, text).with_incident(Incident::Throttled(self.rule, because));
        match self.cause {
            Cause::Exhausted { wait, .. } => denial.with_header("retry-after", wait.retry_after_secs().to_string()),
            Cause::Full | Cause::Unavailable(_) => denial,
        }
    }
}

#[cfg(test)]
mod tests;
