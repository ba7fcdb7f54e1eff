//! A person at a browser, scripted: it keeps cookies for each server, follows redirects, and fills in forms.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use http::{HeaderMap, Method};

use crate::client::{Request, RequestBody};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 12;

/// A browser with its cookies.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// By host and port: two test servers on loopback are two sites.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the browser shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The document.
    pub body: String,
    /// Every address on the way here, in order, this one last.
    pub visited: Vec<String>,
}

// === impl Browser ===

impl Browser {
    /// A browser that was never used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an address and follows where it leads, redirects and `meta refresh` alike. An address that `stop` begins is shown
    /// without being opened.
    ///
    /// # Errors
    /// Where a server does not answer, or leads around in circles.
    pub async fn open(&mut self, url: &str, stop: Option<&str>) -> Result<Page> {
        self.go(Method::GET, url, None, stop).await
    }

    /// Sends the form of a page with these fields.
    ///
    /// # Errors
    /// Where the page has no form, or as [`Browser::open`].
    pub async fn submit(&mut self, page: &Page, fields: &[(&str, &str)], stop: Option<&str>) -> Result<Page> {
        let (_, form) = page.body.split_once("<form ").with_context(|| format!("no form in `{}`", page.body))?;
        let action = attribute(form, "action").context("the form has no action")?;
        let url = absolute(&page.url, &action);
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        self.go(Method::POST, &url, Some(body.join("&")), stop).await
    }

    /// The cookies for a server, as they would be sent.
    #[must_use]
    pub fn cookies(&self, host: &str) -> String {
        let own = self.cookies.get(host).into_iter().flatten();
        own.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    async fn go(&mut self, method: Method, url: &str, form: Option<String>, stop: Option<&str>) -> Result<Page> {
        let (mut method, mut url, mut form) = (method, url.to_owned(), form);
        let mut visited = Vec::new();
        for _ in 0..MAX_REDIRECTS {
            visited.push(url.clone());
            if stop.is_some_and(|stop| url.starts_with(stop)) {
                return Ok(Page { url, status: 0, headers: HeaderMap::new(), body: String::new(), visited });
            }
            let (host, path) = split(&url)?;
            let to: SocketAddr = host.parse().with_context(|| format!("`{url}` leads away from this machine"))?;
            let mut request = Request::new(method.clone(), &path).header("accept", "text/html");
            let cookies = self.cookies(&host);
            if !cookies.is_empty() {
                request = request.header("cookie", cookies);
            }
            if let Some(form) = form.take() {
                request = request
                    .header("content-type", "application/x-www-form-urlencoded")
                    .header("sec-fetch-site", "same-origin");
                request.body = RequestBody::Whole(form.into());
            }
            let answer = request.send(to).await?;
            self.keep(&host, &answer.headers);
            let location = answer.headers.get("location").and_then(|value| value.to_str().ok());
            let body = answer.text();
            let onward = match location {
                Some(location) if answer.status.is_redirection() => Some(location.to_owned()),
                _ => refresh(&body),
            };
            match onward {
                Some(onward) => (method, url) = (Method::GET, absolute(&url, &onward)),
                None => {
                    let (status, headers) = (answer.status.as_u16(), answer.headers);
                    return Ok(Page { url, status, headers, body, visited });
                }
            }
        }
        bail!("redirected in circles: {visited:?}")
    }

    fn keep(&mut self, host: &str, headers: &HeaderMap) {
        let jar = self.cookies.entry(host.to_owned()).or_default();
        for line in headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok()) {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            let is_gone = value.is_empty() || attributes.contains("1970") || attributes.contains("Max-Age=0");
            if is_gone {
                jar.remove(name.trim());
            } else {
                jar.insert(name.trim().to_owned(), value.to_owned());
            }
        }
    }
}

// === impl Page ===

impl Page {
    /// What stands between `<h1>` and `</h1>`.
    #[must_use]
    pub fn title(&self) -> String {
        let (_, rest) = self.body.split_once("<h1>").unwrap_or_default();
        unescaped(rest.split("</h1>").next().unwrap_or_default())
    }

    /// A parameter of the address.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.url, name)
    }
}

/// A parameter of an address.
#[must_use]
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name))
        .map(|(_, value)| decoded(value))
}

/// A text as it stands in a form or a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.extend(u8::from_str_radix(&digits, 16));
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&#39;", "'").replace("&amp;", "&")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    Some(unescaped(rest.split('"').next()?))
}

fn refresh(body: &str) -> Option<String> {
    let (_, rest) = body.split_once(r#"<meta http-equiv="refresh" content="0;url="#)?;
    Some(unescaped(rest.split('"').next()?))
}

/// Host with port, and path with query.
fn split(url: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("`{url}` is not http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((host.to_owned(), format!("/{path}")))
}

fn absolute(base: &str, url: &str) -> String {
    if url.contains("://") {
        return url.to_owned();
    }
    let end = base.match_indices('/').nth(2).map_or(base.len(), |(at, _)| at);
    format!("{}{url}", base.get(..end).unwrap_or(base))
}
