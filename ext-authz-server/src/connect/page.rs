//! The pages that people see: plain HTML without a script, escaped, never stored, never framed, with no way to tell others
//! where the reader was.

use std::sync::LazyLock;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem;color:#1b1f24;\
background:#fff}h1{font-size:1.4rem}dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1rem}dt{color:#57606a}\
dd{margin:0;overflow-wrap:anywhere}code{background:#f0f2f4;padding:.1rem .3rem;border-radius:.2rem}\
input,select,button{font:inherit;padding:.4rem .8rem;margin:.2rem 0}label{display:block;margin:.8rem 0}\
button{border:1px solid #8c959f;border-radius:.4rem;background:#f6f8fa;cursor:pointer}\
button.main{background:#0b5fff;border-color:#0b5fff;color:#fff}\
@media(prefers-color-scheme:dark){body{background:#111418;color:#e6e8eb}code{background:#22272e}\
button{background:#22272e;color:#e6e8eb}dt{color:#9aa4b0}}";

/// What may be in a page: one style, forms to this server, nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// A page in the making. Everything that is added is escaped, except by [`Page::raw`].
pub(super) struct Page {
    status: StatusCode,
    title: String,
    head: String,
    body: String,
}

// === impl Page ===

impl Page {
    pub(super) fn new(status: StatusCode, title: &str) -> Page {
        let body = format!("<h1>{}</h1>", escaped(title));
        Page { status, title: title.to_owned(), head: String::new(), body }
    }

    /// A paragraph.
    pub(super) fn text(mut self, text: &str) -> Page {
        self.body += &format!("<p>{}</p>", escaped(text));
        self
    }

    /// Names and their values.
    pub(super) fn facts(mut self, facts: &[(&str, String)]) -> Page {
        self.body += "<dl>";
        for (name, value) in facts {
            self.body += &format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
        }
        self.body += "</dl>";
        self
    }

    /// A link, opened without a referrer.
    pub(super) fn link(mut self, url: &str, text: &str) -> Page {
        self.body += &format!(r#"<p><a rel="noreferrer" href="{}">{}</a></p>"#, escaped(url), escaped(text));
        self
    }

    /// Goes on to another address by itself, and by a link.
    pub(super) fn onward(mut self, url: &str, text: &str) -> Page {
        self.head += &format!(r#"<meta http-equiv="refresh" content="0;url={}">"#, escaped(url));
        self.link(url, text)
    }

    /// HTML as it is.
    pub(super) fn raw(mut self, html: &str) -> Page {
        self.body += html;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Page { status, title, head, body } = self;
        let html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\"><title>{}</title>{head}\
             <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
            escaped(&title)
        );
        guarded((status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response())
    }
}

/// A redirect that a browser follows with GET.
pub(super) fn redirect(url: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(url) else {
        return Page::new(StatusCode::BAD_GATEWAY, "This address cannot be opened").into_response();
    };
    guarded((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

/// Adds the headers that every answer has.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Text for HTML, in content and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // Characters that change the direction of what follows could make a name read as another one.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_added_becomes_markup() {
        let hostile = "\"><script>alert(1)</script>'&\u{202e}\n";
        let page = Page::new(StatusCode::OK, hostile).text(hostile).facts(&[(hostile, hostile.to_owned())]);
        let page = page.link(hostile, hostile).onward(hostile, hostile);
        let written = page.body + &page.head;
        assert!(!written.contains("<script") && !written.contains("\"\">"), "{written}");
        assert!(!written.contains('\u{202e}'));
    }

    #[test]
    fn every_answer_is_guarded() {
        for response in [Page::new(StatusCode::OK, "x").into_response(), redirect("https://a.example/")] {
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("cache-control"), "no-store");
            assert_eq!(header("referrer-policy"), "no-referrer");
            let policy = header("content-security-policy");
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
        }
        assert_eq!(redirect("https://a.example/\r\nx: y").status(), StatusCode::BAD_GATEWAY);
    }
}
