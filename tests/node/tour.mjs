// What each TypeScript client does through Keyward, and the JSON object that the test asserts on. `received` holds
// every byte and header that the HTTP client was given.

const MAX_RECEIVED = 8_000_000;

/** A fetch that keeps a copy of what it receives. */
export function recordingFetch() {
    const received = [];
    const keep = (text) => {
        if (received.length < MAX_RECEIVED) received.push(text);
    };
    const record = async (body) => {
        const decoder = new TextDecoder();
        // A stream that is open to the end is cut when the client closes.
        try {
            for await (const chunk of body) keep(decoder.decode(chunk, { stream: true }));
        } catch {
            keep('\n[cut]');
        }
    };
    const recording = async (url, init) => {
        const response = await fetch(url, init);
        keep(`\n${response.status} ${response.statusText}\n`);
        for (const [name, value] of response.headers) keep(`${name}: ${value}\n`);
        const copy = response.clone().body;
        if (copy !== null) record(copy);
        return response;
    };
    return { fetch: recording, received: () => received.join('') };
}

/** What the client made of a failure. */
export function describe(error) {
    return { name: error.constructor.name, code: error.code ?? null, message: error.message, data: error.data ?? null };
}

async function attempt(call) {
    try {
        return { result: await call() };
    } catch (error) {
        return { error: describe(error) };
    }
}

/** The tour against the demo upstream. `call` calls a tool. */
export async function tour({ listTools, call, leaks }) {
    const report = { tools: (await listTools()).tools.map((tool) => tool.name), leaks: [] };
    report.echo = await call('echo', { message: 'hello' });
    for (const leak of leaks) report.leaks.push({ leak, ...(await attempt(() => call('leak', leak))) });
    report.denied = await attempt(() => call('delete_everything', {}));
    report.echo_again = await call('echo', { message: 'hello again' });
    return report;
}

/** The tour against the "everything" server. `callWithProgress` calls a tool and collects its progress. */
export async function everythingTour({ listTools, call, callWithProgress }) {
    const report = { tools: (await listTools()).tools.map((tool) => tool.name), progress: [] };
    report.echo = await call('echo', { message: 'hello' });
    const started = performance.now();
    const onprogress = ({ progress, total }) =>
        report.progress.push({ progress, total, after_ms: performance.now() - started });
    const slow = { duration: 1, steps: 4 };
    report.long = await callWithProgress('trigger-long-running-operation', slow, onprogress);
    report.long_ms = performance.now() - started;
    report.picture = await call('get-tiny-image', {});
    return report;
}
