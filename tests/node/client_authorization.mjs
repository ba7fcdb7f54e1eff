// The official TypeScript client finds the authorization server by itself, as a person (authorization code with PKCE) or as a
// machine (client credentials), and calls tools, one of which takes a scope that it did not ask for at first.
// Arguments, as one JSON object: `url`, `account` (a person) or `secret` (a machine), `client`, `callback`, `tools`: pairs of name and arguments.

import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const { url, account, client: clientId, secret, callback, tools } = JSON.parse(process.argv[2]);

// What was asked of whom, for the report; never a token.
const asked = [];
const authorizations = [];

async function recordingFetch(target, init) {
    const response = await fetch(target, init);
    const challenge = response.headers.get('www-authenticate') ?? undefined;
    asked.push({ method: init?.method ?? 'GET', url: String(target), status: response.status, challenge });
    return response;
}

/** A person's client: public, registered beforehand. */
class Person {
    #tokens;
    #verifier;
    get redirectUrl() {
        return callback;
    }
    get clientMetadata() {
        return { redirect_uris: [callback], client_name: 'keyward-tests', token_endpoint_auth_method: 'none' };
    }
    clientInformation() {
        return { client_id: clientId };
    }
    tokens() {
        return this.#tokens;
    }
    saveTokens(tokens) {
        this.#tokens = tokens;
    }
    saveCodeVerifier(verifier) {
        this.#verifier = verifier;
    }
    codeVerifier() {
        return this.#verifier;
    }
    redirectToAuthorization(address) {
        authorizations.push(address);
    }
}

/** The browser: follows redirects with its cookies, types the account, and ends at the callback. */
async function authorize(start) {
    const cookies = new Map();
    let address = String(start);
    let init = {};
    for (let step = 0; step < 20 && !address.startsWith(callback); step++) {
        const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
        const response = await fetch(address, { ...init, redirect: 'manual', headers: { cookie, ...init.headers } });
        for (const set of response.headers.getSetCookie()) {
            const [name, value] = set.split(';')[0].split(/=(.*)/s);
            cookies.set(name, value);
        }
        const location = response.headers.get('location');
        if (location) {
            address = String(new URL(location, address));
            init = {};
        } else if (response.status === 200 && !init.method) {
            init = { method: 'POST', body: new URLSearchParams({ account, allow: 'yes' }) };
        } else {
            throw new Error(`no way on from ${address}: ${response.status} ${await response.text()}`);
        }
    }
    return new URL(address).searchParams;
}

const authProvider = account
    ? new Person()
    : new ClientCredentialsProvider({ clientId, clientSecret: secret, clientName: 'keyward-tests' });

async function connected() {
    const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: recordingFetch, authProvider });
    const client = new Client(
        { name: 'keyward-tests', version: '1.0.0' },
        { capabilities: {}, versionNegotiation: { mode: 'auto' } }
    );
    return { transport, client, connect: () => client.connect(transport) };
}

/** Does something, and once more after every authorization that it takes. */
async function withAuthorization(act) {
    for (let attempt = 0; ; attempt++) {
        const before = authorizations.length;
        const session = await connected();
        try {
            await session.connect();
            return await act(session.client);
        } catch (error) {
            if (attempt === 3 || authorizations.length === before) {
                throw error;
            }
            await session.transport.finishAuth(await authorize(authorizations.at(-1)));
        } finally {
            await session.client.close().catch(() => undefined);
        }
    }
}

const results = {};
for (const [tool, given] of tools) {
    try {
        const result = await withAuthorization((client) => client.callTool({ name: tool, arguments: given }));
        results[tool] = result.isError ? 'tool error' : 'ok';
    } catch (error) {
        results[tool] = `${error.name}: ${error.message}`;
    }
}
const scopes = authorizations.map((address) => address.searchParams.get('scope'));
const resources = authorizations.map((address) => address.searchParams.get('resource'));
console.log(JSON.stringify({ results, scopes, resources, asked }));
process.exit(0);
