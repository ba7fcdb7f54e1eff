use super::*;

const D: &str = "definition";

/// Takes steps, each written `who action`; the last one's outcome.
fn steps(approvals: usize, all: &[&str]) -> Result<(Record, bool), StepError> {
    let mut record = Record::default();
    let mut changed = false;
    for step in all {
        let mut words = step.split(' ');
        let (by, action) = (words.next().unwrap(), words.next().unwrap());
        let definition = words.next().unwrap_or(D);
        let action = [Action::Approve, Action::Activate, Action::Disable, Action::Revoke]
            .into_iter()
            .find(|known| known.as_str() == action)
            .unwrap();
        let next = record.after(action, definition, by, approvals)?;
        changed = next.is_some();
        record = next.unwrap_or(record);
    }
    Ok((record, changed))
}

fn state(approvals: usize, all: &[&str]) -> State {
    steps(approvals, all).unwrap().0.state(D, approvals)
}

#[test]
fn each_step_leads_to_its_state() {
    let cases: [(usize, &[&str], State); 20] = [
        (0, &[], State::Active),
        (0, &["a disable"], State::Disabled),
        (0, &["a disable", "a activate"], State::Active),
        (0, &["a revoke"], State::Revoked),
        (1, &[], State::Draft),
        (1, &["a approve"], State::Approved),
        (1, &["a approve", "a activate"], State::Active),
        (1, &["a approve", "a activate", "b disable"], State::Disabled),
        (1, &["a approve", "a activate", "b disable", "b activate"], State::Active),
        (1, &["a approve", "a activate", "b revoke"], State::Revoked),
        (1, &["a disable"], State::Disabled),
        (1, &["a disable", "a approve"], State::Disabled),
        (1, &["a disable", "a approve", "a activate"], State::Active),
        (2, &["a approve"], State::Draft),
        (2, &["a approve", "b approve"], State::Approved),
        (2, &["a approve", "b approve", "c activate"], State::Active),
        // A definition that changes is a draft; that of before is as it was.
        (1, &["a approve other", "a activate other"], State::Draft),
        (1, &["a approve", "a activate", "a approve other", "a activate other"], State::Active),
        // After a stop, each definition has to be activated by itself.
        (1, &["a approve", "a activate", "a approve other", "a disable", "a activate other"], State::Approved),
        (2, &["a approve", "a approve other", "b approve other"], State::Draft),
    ];
    for (approvals, all, expected) in cases {
        assert_eq!(state(approvals, all), expected, "{approvals} {all:?}");
    }
}

#[test]
fn a_step_that_was_taken_before_changes_nothing() {
    let cases: [(usize, &[&str]); 7] = [
        (0, &["a activate"]),
        (0, &["a disable", "b disable"]),
        (0, &["a revoke", "b revoke"]),
        (1, &["a approve", "a approve"]),
        (1, &["a approve", "b approve"]),
        (1, &["a approve", "a activate", "b activate"]),
        (1, &["a approve", "a activate", "b approve"]),
    ];
    for (approvals, all) in cases {
        let before = steps(approvals, &all[..all.len() - 1]).unwrap().0;
        assert_eq!(steps(approvals, all), Ok((before, false)), "{approvals} {all:?}");
    }
}

#[test]
fn one_person_counts_once_however_the_name_is_written() {
    for again in ["alice approve", "Alice approve", "ALICE approve"] {
        assert_eq!(state(2, &["alice approve", again]), State::Draft, "{again}");
    }
    for name in ["", "alice ", "alice\u{200b}", "\u{430}lice", "a b", "a\nb"] {
        let error = Record::default().after(Action::Approve, D, name, 1).unwrap_err();
        assert!(matches!(error, StepError::Name(_)), "{name:?}");
    }
}

#[test]
fn a_step_that_leads_nowhere_says_where_it_stands_and_what_can_be_done() {
    let cases: [(usize, &[&str], &str); 6] = [
        (
            1,
            &["a activate"],
            "it is draft, with 0 of 1 approvals of this definition; what can be done: approve, disable, revoke",
        ),
        (
            2,
            &["a approve", "a activate"],
            "it is draft, with 1 of 2 approvals of this definition; what can be done: approve, disable, revoke",
        ),
        (
            2,
            &["a disable", "a activate"],
            "it is disabled, with 0 of 2 approvals of this definition; what can be done: approve, activate, revoke",
        ),
        (
            1,
            &["a revoke", "a activate"],
            "it is revoked, so that it cannot be activated; what can be done: nothing, declare a binding with another id",
        ),
        (
            0,
            &["a revoke", "a disable"],
            "it is revoked, so that it cannot be disabled; what can be done: nothing, declare a binding with another id",
        ),
        (0, &["a approve"], "`lifecycle.approvals` is 0: nothing has to be approved"),
    ];
    for (approvals, all, expected) in cases {
        assert_eq!(steps(approvals, all).unwrap_err().to_string(), expected, "{approvals} {all:?}");
    }
}

#[test]
fn more_approvals_than_there_are_make_a_draft_that_has_to_be_activated_again() {
    let (active, _) = steps(1, &["a approve", "a activate"]).unwrap();
    assert_eq!(active.state(D, 2), State::Draft);
    let approved = active.after(Action::Approve, D, "b", 2).unwrap().unwrap();
    assert_eq!(approved.state(D, 2), State::Approved);
    assert_eq!(active.after(Action::Approve, D, "a", 2), Ok(None));
}

#[test]
fn a_definition_without_a_digest_is_never_approved() {
    assert_eq!(Record::default().after(Action::Approve, "", "a", 1), Err(StepError::NoDefinition));
    assert_eq!(Record::default().state("", 1), State::Draft);
}

#[test]
fn the_oldest_definition_is_forgotten_first() {
    let mut record = Record::default();
    for number in 0..=MAX_DEFINITIONS {
        record = record.after(Action::Approve, &number.to_string(), "a", 1).unwrap().unwrap();
    }
    assert_eq!(record.state("0", 1), State::Draft);
    assert_eq!(record.state("1", 1), State::Approved);
}
