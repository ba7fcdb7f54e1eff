//! Why a person cannot go on: each cause has its page, which says what to do, and its record, which says what happened.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::page::Page;

/// Why a person cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    /// The ticket's time is over.
    #[error("the ticket's time is over")]
    TicketExpired,
    /// The address is not one that this server made.
    #[error("the ticket was not made by this server, or was changed")]
    TicketForged,
    /// The person has decided already.
    #[error("the ticket was used before")]
    TicketUsed,
    /// The step is over, was taken before, or never was.
    #[error("the state is unknown: its time is over, it was used before, or it was made up")]
    StateUnknown,
    /// The step began in another browser.
    #[error("the state belongs to another browser")]
    OtherBrowser,
    /// Somebody else logged in than the one whom the agent acts for.
    #[error("the person who logged in is not the one for whom the agent asked")]
    OtherPerson,
    /// The login did not work.
    #[error("the login failed: {0}")]
    Login(String),
    /// The person or the provider said no.
    #[error("declined at the provider: {0}")]
    ProviderDeclined(String),
    /// The answer does not come from the provider.
    #[error("the authorization response names another issuer")]
    OtherIssuer,
    /// The provider does not work.
    #[error("the provider: {0}")]
    Provider(String),
    /// The provider gave nothing that lasts.
    #[error("the provider gave no refresh token")]
    NoRefreshToken,
    /// What the person entered cannot be a key.
    #[error("what was entered cannot be used: {0}")]
    BadKey(&'static str),
    /// The form was not sent from our page.
    #[error("the form was sent from another site")]
    ForeignForm,
    /// The provider or the login is not configured any more.
    #[error("not configured: {0}")]
    NotConfigured(&'static str),
    /// Keyward cannot do its part now.
    #[error("{0}")]
    Unavailable(String),
}

// === impl Halt ===

impl Halt {
    /// What the person sees. It repeats nothing that came from outside.
    pub(super) fn page(&self) -> Response {
        const AGAIN: &str = "Ask your agent to try again; it will show you a new link.";
        const NOTHING: &str = "Nothing was connected.";
        let (status, title, text) = match self {
            Halt::TicketExpired => (StatusCode::GONE, "This link has expired", "Links are good for ten minutes."),
            Halt::TicketForged => {
                (StatusCode::BAD_REQUEST, "This link is not valid", "It may have been cut off when it was copied.")
            }
            Halt::TicketUsed => {
                (StatusCode::GONE, "This link was used already", "Each link can be used to connect once.")
            }
            Halt::StateUnknown => (
                StatusCode::BAD_REQUEST,
                "This step is over",
                "It took longer than ten minutes, or this page was opened a second time.",
            ),
            Halt::OtherBrowser => (
                StatusCode::FORBIDDEN,
                "This step began in another browser",
                "Open the link and finish in one browser, with cookies allowed. If somebody else sent you here, close this page.",
            ),
            Halt::OtherPerson => (
                StatusCode::FORBIDDEN,
                "You are signed in as somebody else",
                "The link was made for another person's agent. If it is yours, sign out, and sign in with the account that \
                 you use with your agent. If somebody sent you this link, close this page.",
            ),
            Halt::Login(_) => (StatusCode::BAD_GATEWAY, "Signing in did not work", NOTHING),
            Halt::ProviderDeclined(_) => {
                (StatusCode::OK, "Not connected", "The request was declined. Your agent cannot use this account.")
            }
            Halt::OtherIssuer => (StatusCode::BAD_REQUEST, "This answer came from somewhere else", NOTHING),
            Halt::Provider(_) => (StatusCode::BAD_GATEWAY, "The service did not answer as expected", NOTHING),
            Halt::NoRefreshToken => (
                StatusCode::BAD_GATEWAY,
                "The service gave no lasting access",
                "Tell your administrator that no refresh token was issued.",
            ),
            Halt::BadKey(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "This key cannot be used",
                "A key has 8 to 4096 characters and no spaces, and is kept for the time that you choose. Go back and try again.",
            ),
            Halt::ForeignForm => (StatusCode::FORBIDDEN, "This form came from another site", "Close this page."),
            Halt::NotConfigured(_) => (
                StatusCode::NOT_FOUND,
                "This account cannot be connected",
                "The administrator has not set it up, or has removed it.",
            ),
            Halt::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "This does not work right now", "Please try again in a minute.")
            }
        };
        let page = Page::new(status, title).text(text);
        let ends = matches!(self, Halt::ForeignForm | Halt::NotConfigured(_) | Halt::BadKey(_) | Halt::NoRefreshToken);
        if ends { page.into_response() } else { page.text(AGAIN).into_response() }
    }

    /// Whether the record says that the person declined, and not that something was refused.
    pub(super) fn is_decline(&self) -> bool {
        matches!(self, Halt::ProviderDeclined(_))
    }
}
