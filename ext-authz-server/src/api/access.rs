//! Who may do what: roles, the tenants they are for, and the question that each handler asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::Extension;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::config::{self, Assignment, Role};
use crate::identity::Principal;

/// The tenant that stands for each, and for what belongs to none.
const ALL: &str = "*";

/// Something that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Look.
    Read,
    /// Agree to a binding.
    Approve,
    /// Stop something.
    Stop,
    /// Let something through.
    Allow,
}

/// An operator who proved who they are, with all that they may do.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    /// The name of the issuer.
    pub(super) issuer: String,
    /// The subject there.
    pub(super) subject: String,
    assignments: Vec<Assignment>,
}

// === impl Operator ===

impl Operator {
    /// The operator behind a token; `None` where no assignment fits.
    pub(super) fn of(principal: &Principal, api: &config::Api) -> Option<Operator> {
        let vouched = |own: &&Assignment| own.issuer.as_ref().is_none_or(|name| *name == principal.issuer);
        let named = |own: &&Assignment| {
            own.subjects.contains(&principal.subject) || own.groups.iter().any(|group| principal.roles.contains(group))
        };
        let assignments: Vec<_> = api.assignments.iter().filter(vouched).filter(named).cloned().collect();
        (!assignments.is_empty()).then(|| Operator {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            assignments,
        })
    }

    /// The name that stands in histories: no two operators share one.
    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.subject, self.issuer)
    }

    /// Whether something may be done for a tenant, or with what belongs to none.
    pub(super) fn may(&self, permission: Permission, tenant: Option<&str>) -> bool {
        let covers = |own: &&Assignment| own.tenants.iter().any(|name| name == ALL || Some(name.as_str()) == tenant);
        self.assignments.iter().filter(covers).any(|own| grants(own.role, permission))
    }

    /// # Errors
    /// It may not be done.
    pub(super) fn require(&self, permission: Permission, tenant: Option<&str>) -> Result<(), Problem> {
        if self.may(permission, tenant) {
            return Ok(());
        }
        Err(Problem::forbidden(match tenant {
            Some(_) => "no role of yours covers this for that tenant",
            None => "no role of yours covers this for every tenant (`*`)",
        }))
    }
}

fn grants(role: Role, permission: Permission) -> bool {
    match permission {
        Permission::Read => true,
        Permission::Approve => role == Role::Approver,
        Permission::Stop => matches!(role, Role::Responder | Role::Operator),
        Permission::Allow => role == Role::Operator,
    }
}

/// `GET /v1/operator`: who is asking, and what they may do.
pub(super) async fn me(Extension(operator): Extension<Arc<Operator>>) -> Json<Value> {
    let roles = operator.assignments.iter().map(|own| json!({"role": role_name(own.role), "tenants": own.tenants}));
    Json(json!({
        "issuer": operator.issuer,
        "subject": operator.subject,
        "name": operator.name(),
        "roles": roles.collect::<Vec<_>>(),
    }))
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Approver => "approver",
        Role::Responder => "responder",
        Role::Operator => "operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(role: Role, tenants: &[&str]) -> Operator {
        let api = config::Api {
            identity: config::IdentityConfig::default(),
            assignments: vec![Assignment {
                role,
                tenants: tenants.iter().map(ToString::to_string).collect(),
                issuer: Some("staff".to_owned()),
                subjects: vec!["ann".to_owned()],
                groups: vec!["on-call".to_owned()],
            }],
            hosts: Vec::new(),
        };
        let mut principal = Principal::nobody();
        principal.issuer = "staff".to_owned();
        principal.subject = "bob".to_owned();
        principal.roles = vec!["on-call".to_owned()];
        let operator = Operator::of(&principal, &api).unwrap();
        principal.issuer = "customers".to_owned();
        assert!(Operator::of(&principal, &api).is_none(), "the same name at another issuer");
        principal.issuer = "staff".to_owned();
        principal.roles.clear();
        assert!(Operator::of(&principal, &api).is_none(), "nobody in no group");
        principal.subject = "ann".to_owned();
        assert!(Operator::of(&principal, &api).is_some());
        operator
    }

    #[test]
    fn a_role_is_for_its_tenants_only() {
        let own = operator(Role::Responder, &["acme"]);
        assert!(own.may(Permission::Stop, Some("acme")));
        for tenant in [Some("ACME"), Some("acm"), Some("other"), Some(""), Some("*"), None] {
            assert!(!own.may(Permission::Stop, tenant), "{tenant:?}");
            assert!(!own.may(Permission::Read, tenant), "{tenant:?}");
        }
        let every = operator(Role::Responder, &["*"]);
        assert!(every.may(Permission::Stop, None) && every.may(Permission::Stop, Some("acme")));
    }

    #[test]
    fn each_role_may_do_its_own_and_no_more() {
        use Permission::{Allow, Approve, Read, Stop};
        let table = [
            (Role::Viewer, vec![Read]),
            (Role::Approver, vec![Read, Approve]),
            (Role::Responder, vec![Read, Stop]),
            (Role::Operator, vec![Read, Stop, Allow]),
        ];
        for (role, may) in table {
            let own = operator(role, &["*"]);
            for permission in [Read, Approve, Stop, Allow] {
                assert_eq!(own.may(permission, None), may.contains(&permission), "{role:?} {permission:?}");
            }
        }
    }
}
