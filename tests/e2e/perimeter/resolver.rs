//! A DNS server that says what a test wants, and changes its mind when told to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// What it answers, by name: a list of answers, one for each time it is asked; the last one stays.
type Answers = HashMap<String, Vec<Vec<Ipv4Addr>>>;

/// A running server.
pub(super) struct Resolver {
    pub(super) address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
}

impl Resolver {
    pub(super) async fn start() -> Resolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver { address: socket.local_addr().unwrap(), answers: Arc::default() };
        let answers = Arc::clone(&resolver.answers);
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query).await {
                if let Some(answer) = respond(&query[..length], &answers) {
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        resolver
    }

    /// Answers for a name from now on.
    pub(super) fn answer(&self, name: &str, rounds: &[&[&str]]) {
        let rounds = rounds.iter().map(|round| round.iter().map(|text| text.parse().unwrap()).collect()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), rounds);
    }
}

/// The answer to one question (RFC 1035, 4.1): addresses of version 4 that live for one second, nothing else.
fn respond(query: &[u8], answers: &Mutex<Answers>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while *query.get(at)? > 0 {
        let length = usize::from(*query.get(at)?);
        labels.push(String::from_utf8_lossy(query.get(at + 1..=at + length)?).to_ascii_lowercase());
        at += length + 1;
    }
    let question = query.get(12..at + 5)?;
    let asks_for_v4 = query.get(at + 1..at + 3)? == [0, 1];
    let mut answers = answers.lock().ok()?;
    let rounds = answers.get_mut(&labels.join("."));
    let found = match rounds {
        Some(rounds) if asks_for_v4 && rounds.len() > 1 => rounds.remove(0),
        Some(rounds) if asks_for_v4 => rounds.first()?.clone(),
        _ => Vec::new(),
    };
    let mut answer = query.get(..2)?.to_vec();
    // A response without an error: one question, these answers.
    answer.extend([0x81, 0x80, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for address in found {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
