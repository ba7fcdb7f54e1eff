//! The `throttles` section: how many calls may come, counted for whom, and what happens where nobody can count.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;
use crate::binding::MAX_TOOL_BYTES;

/// The most rules.
const MAX_RULES: usize = 64;

/// Limits on how many messages may come. Every rule that matches counts; one that is used up denies with `throttled` and
/// `Retry-After`, before policy is asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttles {
    /// The rules, 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<ThrottleRule>,
    /// How many counters that are in use one server keeps, 16 to 1000000, default 65536. A counter that has run down takes no
    /// place.
    #[serde(default = "default_max_counters")]
    #[schemars(range(min = 16, max = 1_000_000))]
    pub max_counters: usize,
    /// What happens to a call that needs one more counter, default `deny`.
    #[serde(default)]
    pub when_full: WhenFull,
    /// What happens to a call that a rule of scope `shared` counts while the database does not answer, default `deny`.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThrottleRule {
    /// The name in records and metrics: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`; unique. A rule with another name
    /// begins to count anew.
    pub name: String,
    /// What has a counter of its own: each combination of these that occurs.
    #[schemars(length(min = 1, max = 6))]
    pub per: Vec<ThrottlePer>,
    /// How many messages may come in `window_secs`, 1 to 1000000. Each element of a batch is one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: u32,
    /// In how many seconds, 1 to 86400.
    #[schemars(range(min = 1, max = 86400))]
    pub window_secs: u32,
    /// How many may come at once after a pause, 1 to `limit`. Absent: `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// The server entries to which it applies. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 256))]
    pub servers: Option<Vec<String>>,
    /// The tools whose calls it counts, 1 to 256: names, or patterns in which each `*` stands for any text. Absent: every
    /// message counts. Required for `per: [tool]`, where each entry has a counter: names that a client made up have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 256))]
    pub tools: Option<Vec<String>>,
    /// Whether each server counts for itself, or all replicas together in the database. Default `replica`.
    #[serde(default)]
    pub scope: ThrottleScope,
}

/// What has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThrottlePer {
    /// Who acts, by its subject at its issuer: a person, through whatever agent, or an agent or program for itself. Of one
    /// tenant.
    Principal,
    /// The agent, by its own client id at its issuer, whoever it acts for. Callers without an agent share one. Of one tenant.
    Agent,
    /// The tenant.
    Tenant,
    /// The host of the request, as the destination that matched names it: all hosts under `*.example` are one.
    Host,
    /// The server entry.
    Server,
    /// The entry of the rule's `tools` that the tool's name matches first.
    Tool,
}

/// Who counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleScope {
    /// Each server for itself, in memory.
    #[default]
    Replica,
    /// All that share the database, in it.
    Shared,
}

/// What happens where there is no place for one more counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The call is denied with `overloaded`.
    #[default]
    Deny,
    /// It passes uncounted.
    Allow,
}

/// What happens while the database does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    /// The call is denied with `decision_unavailable`.
    #[default]
    Deny,
    /// Each server counts for itself.
    Local,
}

// === impl Throttles ===

impl Throttles {
    /// Adds what must not stand here.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.range("throttles.max_counters", self.max_counters, 16..=1_000_000);
        checker.not_empty("throttles.rules", &self.rules, MAX_RULES, "add a rule, or leave `throttles` out");
        for (index, rule) in self.rules.iter().enumerate() {
            let key = format!("throttles.rules[{index}]");
            rule.check(&key, checker);
            if self.rules.iter().take(index).any(|earlier| earlier.name == rule.name) {
                checker.add(format!("{key}.name"), format!("rule `{}` occurs twice", rule.name), "choose another name");
            }
        }
    }
}

// === impl ThrottleRule ===

impl ThrottleRule {
    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        checker.name(format!("{key}.name"), &self.name);
        let per = format!("{key}.per");
        checker.not_empty(&per, &self.per, 6, "say what has a counter of its own, for example `[principal]`");
        checker.distinct(&per, &self.per);
        checker.range(format!("{key}.limit"), self.limit, 1..=1_000_000);
        checker.range(format!("{key}.window_secs"), self.window_secs, 1..=86400);
        if let Some(burst) = self.burst {
            checker.range(format!("{key}.burst"), burst, 1..=self.limit.max(1));
        }
        if let Some(servers) = &self.servers {
            checker.server_names(&format!("{key}.servers"), servers);
        }
        match &self.tools {
            None if self.per.contains(&ThrottlePer::Tool) => {
                let message = "names that clients make up would each have a counter of their own";
                checker.add(&per, message, "list the tools under `tools`");
            }
            None => {}
            Some(tools) => {
                let list = format!("{key}.tools");
                checker.not_empty(&list, tools, 256, "name the tools, or leave `tools` out");
                checker.distinct(&list, tools);
                for (index, tool) in tools.iter().enumerate() {
                    if !(1..=MAX_TOOL_BYTES).contains(&tool.len()) || tool.chars().any(char::is_control) {
                        let message = format!("empty, longer than {MAX_TOOL_BYTES} bytes or with control characters");
                        let remedy = "write the name of a tool, or a part of it and `*`";
                        checker.add(format!("{list}[{index}]"), message, remedy);
                    }
                }
            }
        }
        if self.scope == ThrottleScope::Shared && checker.config().database.is_none() {
            checker.add(format!("{key}.scope"), "there is nowhere to count together", "add the section `database`");
        }
    }
}

fn default_max_counters() -> usize {
    65_536
}
