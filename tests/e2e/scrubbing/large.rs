//! A huge answer passes in constant memory.

use std::fs;
use std::time::{Duration, Instant};

use keyward_tests::stack::Stack;
use serde_json::json;

use crate::leak;

/// 1 GiB of filler, the secret across every border of 16 KiB.
const SIZE_BYTES: u64 = 1 << 30;
/// How much Envoy's memory may grow.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// The resident memory of a process.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok()).unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_passes_in_constant_memory() {
    let stack = Stack::builder("scrubbing-large").policy(leak::POLICY).start().await.unwrap();
    let pid = stack.envoy.process.id();
    // Once before, so that what Envoy keeps for later is there.
    stack.send(leak::call(1, json!({"carrier": "large", "size_bytes": 8 << 20}))).await.unwrap();
    let before = resident_bytes(pid);

    let mut call = leak::call(2, json!({"carrier": "large", "size_bytes": SIZE_BYTES})).bearer(&stack.token);
    call.limit = Duration::from_secs(300);
    let started = Instant::now();
    let mut answer = call.open(stack.agents).await.unwrap();
    assert_eq!(answer.status, 200);
    let (mut total, mut most, mut tail) = (0_u64, before, Vec::new());
    let mut looked = Instant::now();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        total += chunk.bytes.len() as u64;
        // The end of the last chunk comes along, for what lies across the border.
        tail.extend_from_slice(&chunk.bytes);
        let text = std::str::from_utf8(&tail).unwrap();
        assert!(!text.contains(&stack.secret), "the secret is within the first {total} bytes");
        let kept = tail.len().saturating_sub(stack.secret.len());
        tail.drain(..kept);
        if looked.elapsed() > Duration::from_millis(100) {
            looked = Instant::now();
            most = most.max(resident_bytes(pid));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    most = most.max(resident_bytes(pid));
    println!("{total} bytes in {seconds:.1} s; Envoy from {} to {} MiB", before >> 20, most >> 20);
    assert!(total > SIZE_BYTES, "only {total} bytes came");
    assert_eq!(answer.headers["content-length"].to_str().unwrap(), total.to_string());
    assert!(tail.ends_with(b"}"), "the end is missing: {}", String::from_utf8_lossy(&tail));
    assert!(most < before + MAX_GROWTH_BYTES, "Envoy grew from {before} to {most} bytes");
    drop(answer);
    // One on each border, and one at the beginning.
    let started = Instant::now();
    loop {
        let redactions = stack.envoy.stat("wasmcustom.keyward.redactions").await.unwrap();
        if redactions >= SIZE_BYTES / 16_384 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "only {redactions} redactions");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
