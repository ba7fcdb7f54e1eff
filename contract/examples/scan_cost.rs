//! Prints what the scrubber costs: microseconds per MiB of clean text of several kinds, and per construction.

use std::hint::black_box;
use std::time::Instant;

use keyward_contract::scrub::Scrubber;

const MIB: usize = 1 << 20;
const CHUNK_BYTES: usize = 16 * 1024;

fn repeat(piece: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = String::with_capacity(MIB + 4096);
    let mut number = 0;
    while text.len() < MIB {
        text.push_str(&piece(number));
        number += 1;
    }
    text.truncate(MIB);
    text.into_bytes()
}

fn item(number: usize) -> String {
    let id = number.wrapping_mul(0x9e37_79b9) & 0xff_ffff;
    format!(
        "{{\"id\":{id},\"name\":\"Issue {number} in the parser\",\"state\":\"open\",\"labels\":[\"bug\",\"area-{}\"],\
         \"url\":\"https://api.example.test/repos/acme/widgets/issues/{id}?page=2&per_page=50\",\"score\":{}.25,\
         \"body\":\"When the input is empty the reader returns early and the caller never learns why.\"}}",
        number % 9,
        number % 100
    )
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let escape = |text: String| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let blob: String = (0..MIB).map(|_| char::from(alphabet[random() % 64])).collect();
    let wrapped = blob.as_bytes().chunks(76).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\r\n");
    let code = "fn main() {\n    let value = compute(&input, 42);\n    println!(\"{value}\");\n}\n";
    vec![
        ("JSON", repeat(|number| item(number) + ",")),
        ("JSON, indented", repeat(|number| item(number).replace(',', ",\n    ") + ",\n")),
        ("JSON in JSON", repeat(|number| escape(item(number)) + ",")),
        ("JSON in JSON in JSON", repeat(|number| escape(escape(item(number))) + ",")),
        ("source code in JSON", repeat(|_| escape(code.to_owned()))),
        ("source code", repeat(|_| code.to_owned())),
        ("server-sent events", repeat(|number| format!("event: message\ndata: {}\n\n", item(number)))),
        ("HTML", repeat(|n| format!("<li class=\"row\"><a href=\"/i/{n}?a=1&amp;b=2\">Item {n} &gt; 3</a></li>\n"))),
        ("URL-encoded", repeat(|n| format!("q=caf%C3%A9+au+lait%2C+n%C2%B0{n}&lang=fr%2DFR&"))),
        ("base64", blob.into_bytes()),
        ("base64, wrapped", wrapped.into_bytes()),
    ]
}

fn best(mut run: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64() * 1e6);
    }
    best
}

fn main() {
    let keys =
        ["sk-live_4fQ2xZ9kd81LmVa7Tn3Bp6Ws", "Y2xpZW50OnB3+Q8x/zzT1k==", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"];
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{}.{}", "eyJzdWIiOiIxMjM0NTY3ODkwIn0Kx7".repeat(24), "q8Zt".repeat(21));
    for (name, secrets) in [("three keys", keys.map(str::to_owned).to_vec()), ("one 800 byte token", vec![token])] {
        let cost = best(|| (0..100).for_each(|_| drop(black_box(Scrubber::new(&secrets))))) / 100.0;
        println!("{name}: built in {cost:.2} us");
        let scrubber = Scrubber::new(&secrets);
        let value = "application/json; charset=utf-8";
        let cost = best(|| (0..1000).for_each(|_| drop(black_box(scrubber.scrub_value(value.as_bytes()))))) / 1000.0;
        println!("  {:<24}{cost:>9.3} us", "a header value");
        for (sample, text) in samples() {
            let mut out = Vec::new();
            let cost = best(|| {
                let mut stream = scrubber.stream(false);
                for chunk in text.chunks(CHUNK_BYTES) {
                    out.clear();
                    black_box(stream.push(&scrubber, chunk, false, &mut out));
                }
            });
            println!("  {sample:<24}{:>9.0} us/MiB", cost * MIB as f64 / text.len() as f64);
        }
    }
}
