//! What must not stand in the `bindings` section.

use super::{Checker, HOST_REMEDY, names};
use crate::binding::MAX_TOOL_BYTES;
use crate::caller::TOUCHING_REMEDY;
use crate::config::{Binding, BindingMode, Credential, Probe, SecretSource, ServerMode};
use crate::credential::{SlotName, kinds};
use crate::outbound;
use crate::perimeter::authority::HostPattern;
use crate::secret::SecretError;
use keyward_contract::check::STRIPPED_HEADERS;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn bindings(&mut self) {
        let bindings = &self.config.bindings;
        for (index, binding) in bindings.iter().enumerate() {
            let key = format!("bindings[{index}]");
            self.binding(&key, binding);
            if bindings.iter().take(index).any(|earlier| earlier.id == binding.id) {
                self.add(format!("{key}.id"), format!("binding `{}` occurs twice", binding.id), "choose another id");
            }
        }
    }

    fn binding(&mut self, key: &str, binding: &Binding) {
        self.name(format!("{key}.id"), &binding.id);
        self.text(format!("{key}.owner"), &binding.owner);
        self.name(format!("{key}.environment"), &binding.environment);
        self.server_names(&format!("{key}.servers"), &binding.servers);
        if let Some(tools) = &binding.tools {
            self.tools(key, tools, &binding.servers);
        }
        let principals = &binding.principals;
        for (name, list) in [("users", &principals.users), ("agents", &principals.agents), ("roles", &principals.roles)]
        {
            let key = format!("{key}.principals.{name}");
            self.distinct(&key, list);
            for (index, entry) in list.iter().enumerate() {
                self.text(format!("{key}[{index}]"), entry);
                if entry == "*" {
                    let message = "`*` is taken literally and matches nobody";
                    self.add(format!("{key}[{index}]"), message, "leave `principals` out for everybody");
                }
            }
        }
        self.hosts(key, binding);
        self.contents(key, binding);
        self.slots(key, &binding.credentials);
        self.signatures(key, &binding.credentials);
        if let Some(days) = binding.max_age_days {
            self.range(format!("{key}.max_age_days"), days, 1..=3650);
        }
        if let Some(probe) = &binding.probe {
            self.probe(&format!("{key}.probe"), binding, probe);
        }
    }

    fn tools(&mut self, key: &str, tools: &[String], servers: &[String]) {
        let list = format!("{key}.tools");
        self.not_empty(&list, tools, 256, "name the tools, or leave `tools` out for every one");
        self.distinct(&list, tools);
        for (index, tool) in tools.iter().enumerate() {
            if !(1..=MAX_TOOL_BYTES).contains(&tool.len()) || tool.chars().any(char::is_control) {
                let message = format!("empty, longer than {MAX_TOOL_BYTES} bytes or with control characters");
                self.add(format!("{list}[{index}]"), message, "write the name of a tool, or a part of it and `*`");
            }
        }
        for (index, name) in servers.iter().enumerate() {
            if self.config.servers.get(name).is_some_and(|server| server.mode == ServerMode::Http) {
                let message = format!("`{name}` speaks plain HTTP, which calls no tools: it is never served");
                self.add(format!("{key}.servers[{index}]"), message, "take the server out, or leave `tools` out");
            }
        }
    }

    fn probe(&mut self, key: &str, binding: &Binding, probe: &Probe) {
        if binding.credentials.is_empty() {
            self.add(key, "there is no credential to try", "remove the probe");
        }
        if binding.credentials.iter().any(|own| matches!(own, Credential::ClientCertificate(_))) {
            self.add(key, "Keyward's own request presents no client certificate", "remove the probe");
        }
        let remedy = "write the URL of a harmless request at a host of `hosts`";
        match outbound::authority(&probe.url) {
            Err(error) => self.add(format!("{key}.url"), error.to_string(), remedy),
            Ok(authority) => {
                let patterns = binding.hosts.iter().filter_map(|host| HostPattern::parse(host, None).ok());
                let mut patterns = patterns.filter(|pattern| pattern.matches(&authority).is_some());
                if patterns.next().is_none() {
                    let message = format!("the credentials may not go to `{authority}`");
                    self.add(format!("{key}.url"), message, remedy);
                }
            }
        }
        self.not_empty(format!("{key}.statuses"), &probe.statuses, 16, "name the status of a request that is let in");
        for (index, status) in probe.statuses.iter().enumerate() {
            if !(200..400).contains(status) {
                let message = format!("`{status}` does not mean that a credential is good");
                self.add(format!("{key}.statuses[{index}]"), message, "name statuses from 200 to 399");
            }
        }
        self.range(format!("{key}.refresh_secs"), probe.refresh_secs, 1..=3600);
        self.range(format!("{key}.max_stale_secs"), probe.max_stale_secs, 0..=604_800);
    }

    fn hosts(&mut self, key: &str, binding: &Binding) {
        let hosts = format!("{key}.hosts");
        let carries = !binding.credentials.is_empty() || !binding.headers.is_empty();
        if carries && binding.hosts.is_empty() {
            self.add(&hosts, "credentials without a host to which they may go", "name the upstream's host and port");
        }
        for (index, host) in binding.hosts.iter().enumerate() {
            if let Err(cause) = HostPattern::parse(host, None) {
                self.add(format!("{hosts}[{index}]"), format!("`{host}` is not a host: {cause}"), HOST_REMEDY);
            }
        }
    }

    /// What each mode may and must hold.
    fn contents(&mut self, key: &str, binding: &Binding) {
        let (credentials, headers) = (format!("{key}.credentials"), format!("{key}.headers"));
        let mode = binding.mode.as_str();
        match binding.mode {
            BindingMode::ServiceAccount | BindingMode::User | BindingMode::Agent => {
                let remedy = "add one, or write `mode: none` if the upstream needs no credential";
                self.not_empty(&credentials, &binding.credentials, 16, remedy);
                if !binding.headers.is_empty() {
                    self.add(&headers, format!("mode `{mode}` passes no client headers"), "remove them");
                }
            }
            BindingMode::None => {
                if !binding.credentials.is_empty() {
                    self.add(&credentials, "mode `none` has no credentials", "remove them or choose another mode");
                }
                if !binding.headers.is_empty() {
                    self.add(&headers, "mode `none` passes no client headers", "remove them");
                }
            }
            BindingMode::Passthrough => {
                if !binding.credentials.is_empty() {
                    self.add(&credentials, "mode `passthrough` has no credentials", "remove them");
                }
                self.not_empty(&headers, &binding.headers, 16, "name the client's headers that may pass");
            }
        }
        let principals = &binding.principals;
        match binding.mode {
            BindingMode::User
                if principals.users.is_empty() && !binding.credentials.iter().any(|own| own.kind().is_a_users()) =>
            {
                let remedy = "name the user whose credential this is under `principals.users`, or take a credential that is \
                              the user's own: `{user}` in its reference, a grant, the caller's token";
                self.add(format!("{key}.principals"), "mode `user` without a user", remedy);
            }
            BindingMode::Agent
                if principals.agents.is_empty() && !binding.credentials.iter().any(|own| own.kind().is_an_agents()) =>
            {
                let remedy = "name the agent whose credential this is under `principals.agents`, or take one with `{agent}` in \
                              its reference";
                self.add(format!("{key}.principals"), "mode `agent` without an agent", remedy);
            }
            _ => {}
        }
        self.distinct(&headers, &binding.headers);
        for (index, name) in binding.headers.iter().enumerate() {
            let key = format!("{headers}[{index}]");
            if STRIPPED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                self.add(key, format!("`{name}` identifies the client to Keyward and never passes"), "remove it");
            } else if let Some(problem) = names::header_problem(name) {
                self.add(key, format!("`{name}`: {problem}"), "name an end-to-end header in lower case");
            }
        }
    }

    /// Each credential, and that no two occupy one place.
    fn slots(&mut self, key: &str, credentials: &[Credential]) {
        let mut taken: Vec<SlotName> = Vec::new();
        for (index, credential) in credentials.iter().enumerate() {
            let key = format!("{key}.credentials[{index}]");
            for (name, source) in credential.kind().secrets() {
                self.secret(&format!("{key}.{name}"), source);
            }
            credential.kind().check(&key, self);
            for place in kinds::of(credential).places() {
                if taken.contains(&place) {
                    self.add(&key, format!("the {place} is set by an earlier credential"), "keep one");
                }
                taken.push(place);
            }
        }
    }

    /// Signatures over a query that a later credential changes. They are made in the order of the list.
    fn signatures(&mut self, key: &str, credentials: &[Credential]) {
        let signs = |credential: &Credential| match credential {
            Credential::Hmac(own) => own.signs_query(),
            Credential::Aws(_) => true,
            _ => false,
        };
        for (index, later) in credentials.iter().enumerate() {
            let field = match later {
                Credential::Hmac(own) if !own.query.is_empty() => ".query",
                // It gives the query another spelling.
                Credential::Aws(_) => "",
                _ => continue,
            };
            if let Some(earlier) = credentials.iter().take(index).position(signs) {
                let message = format!("it changes the query, which `credentials[{earlier}]` has signed by then");
                let remedy = "list what changes the query before what signs it";
                self.add(format!("{key}.credentials[{index}]{field}"), message, remedy);
            }
        }
    }

    pub(crate) fn template(&mut self, key: &str, template: &str) {
        if template.matches("{secret}").count() != 1 {
            // Not shown: the secret itself may stand where `{secret}` should.
            let message = "the template does not hold exactly one `{secret}`";
            self.add(format!("{key}.template"), message, "write for example `Bearer {secret}`");
        } else if template.len() > 512 || template.chars().any(|c| c.is_control() || !c.is_ascii()) {
            let message = "longer than 512 bytes, or with characters outside printable ASCII";
            self.add(format!("{key}.template"), message, "write plain text around `{secret}`");
        }
    }

    pub(crate) fn secret(&mut self, key: &str, source: &SecretSource) {
        if let Err(error) = self.secrets.check(source) {
            let remedy = match error {
                SecretError::Touching => TOUCHING_REMEDY,
                _ => "write `env://NAME`, `file:///absolute/path` or `STORE://…` with a name of `stores`",
            };
            self.add(format!("{key}.ref"), error.to_string(), remedy);
        }
        if source.json_key.as_deref() == Some("") {
            self.add(
                format!("{key}.json_key"),
                "the key is empty",
                "name a field, or leave it out for the whole content",
            );
        }
    }
}
