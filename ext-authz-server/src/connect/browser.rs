//! Which browser: a cookie that a step is bound to, so that nobody can finish in one browser what began in another.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use crate::database::{digest, random_name};
use crate::seal::SealError;

/// How long the cookie stays, in seconds: longer than one connection takes.
const MAX_AGE_SECS: u32 = 3600;
/// The length of its value.
const VALUE_BYTES: usize = 43;

/// A browser that was seen.
pub(super) struct Browser {
    value: String,
    is_new: bool,
}

// === impl Browser ===

impl Browser {
    /// The browser of a request, or a name for one that has none yet.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn seen_or_new(headers: &HeaderMap, is_https: bool) -> Result<Browser, SealError> {
        match value(headers, is_https) {
            Some(value) => Ok(Browser { value: value.to_owned(), is_new: false }),
            None => Ok(Browser { value: random_name()?, is_new: true }),
        }
    }

    /// What a step keeps of it.
    pub(super) fn digest(&self) -> String {
        digest(&self.value)
    }

    /// Sets the cookie where it is new.
    pub(super) fn remember(&self, mut response: Response, is_https: bool) -> Response {
        let secure = if is_https { "; Secure" } else { "" };
        let name = name(is_https);
        let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age={MAX_AGE_SECS}{secure}", self.value);
        if self.is_new
            && let Ok(cookie) = HeaderValue::from_str(&cookie)
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// Whether a request comes from the browser of this digest.
pub(super) fn is_same(headers: &HeaderMap, is_https: bool, wanted: &str) -> bool {
    value(headers, is_https).is_some_and(|value| digest(value) == wanted)
}

/// Whether a form was sent from our own page, as far as the browser says it.
pub(super) fn is_own_form(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

/// The cookie's name. Browsers take a `__Host-` cookie only over TLS, without a domain and for all paths.
fn name(is_https: bool) -> &'static str {
    if is_https { "__Host-keyward-connect" } else { "keyward-connect" }
}

fn value(headers: &HeaderMap, is_https: bool) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut found = cookies.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name(is_https) && value.len() == VALUE_BYTES).then_some(value)
    });
    let first = found.next();
    // Two of one name: one of them was set by somebody else.
    if found.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn a_browser_is_known_again_by_its_cookie() {
        for is_https in [true, false] {
            let browser = Browser::seen_or_new(&HeaderMap::new(), is_https).unwrap();
            let response = browser.remember("".into_response(), is_https);
            let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
            assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
            assert_eq!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), is_https, "{cookie}");
            let sent = headers(&format!("other=1; {}", cookie.split(';').next().unwrap()));
            assert!(is_same(&sent, is_https, &browser.digest()));
            assert!(!is_same(&sent, !is_https, &browser.digest()));
            let again = Browser::seen_or_new(&sent, is_https).unwrap();
            assert_eq!(again.digest(), browser.digest());
            assert!(!again.remember("".into_response(), is_https).headers().contains_key(header::SET_COOKIE));
        }
    }

    #[test]
    fn a_second_cookie_of_the_name_is_not_believed() {
        let (one, two) = (random_name().unwrap(), random_name().unwrap());
        let sent = headers(&format!("keyward-connect={one}; keyward-connect={two}"));
        assert!(!is_same(&sent, false, &digest(&one)) && !is_same(&sent, false, &digest(&two)));
        assert!(!is_same(&headers("keyward-connect=short"), false, &digest("short")));
        assert!(!is_same(&HeaderMap::new(), false, &digest("")));
    }
}
