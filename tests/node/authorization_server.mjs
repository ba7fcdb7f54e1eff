// An OAuth authorization server on the certified `oidc-provider`, with a login form, further grants, and protected
// resources that check what they are given (protected_resource.mjs).
//
// The variable AUTHORIZATION_SERVER holds JSON:
//   clients        client metadata as RFC 7591 names it
//   resources      { NAME: { audience, scope, format: 'jwt' | 'opaque', token_secs, dpop } }; served at /NAME
//   trusted        [ { issuer, jwks | jwks_uri, audience } ]: whose tokens are exchanged
//   actors         subjects of actor tokens that may act; absent: any
//   refresh_secs, token_secs, rotate (default true), dpop_nonces (true: every proof needs a nonce)
//   tls            { key, cert, ca }: PEM texts for a second listener that asks for client certificates
// It prints {"issuer": URL, "mtls": URL or null, "resource": "HOST:PORT", "report": "HOST:PORT"}.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

import { exportJWK, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';

import { addGrants } from './authorization_grants.mjs';
import { addLogin } from './authorization_login.mjs';
import { protectedResource } from './protected_resource.mjs';

const options = JSON.parse(process.env.AUTHORIZATION_SERVER ?? '{}');
const resources = Object.entries(options.resources ?? {}).map(([name, rest]) => ({ name, format: 'jwt', ...rest }));

const issuerServer = createServer();
const issuer = `http://${await listening(issuerServer)}`;

const { privateKey } = await generateKeyPair('RS256', { extractable: true });
const key = { ...(await exportJWK(privateKey)), kid: 'authorization-server', alg: 'RS256', use: 'sig' };

// What the token endpoint was asked and what it answered, for the report; never a secret.
const tokenCalls = [];

const provider = new Provider(issuer, {
    clients: options.clients ?? [],
    jwks: { keys: [key] },
    clientAuthMethods: [
        'none',
        'client_secret_basic',
        'client_secret_post',
        'private_key_jwt',
        'tls_client_auth',
        'self_signed_tls_client_auth'
    ],
    // As the formal specifications demand of a confidential client, and of every other one.
    pkce: { required: () => true },
    rotateRefreshToken: options.rotate ?? true,
    issueRefreshToken: async (_ctx, client, code) =>
        client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    cookies: { keys: [randomBytes(32).toString('hex')] },
    claims: { openid: ['sub'], email: ['email'] },
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id, email: `${id}@example.com` }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    ttl: {
        AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? options.token_secs ?? 600,
        ClientCredentials: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? options.token_secs ?? 600,
        RefreshToken: options.refresh_secs ?? 86400,
        AuthorizationCode: 60,
        Grant: 86400,
        IdToken: 600,
        Interaction: 600,
        Session: 86400
    },
    features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        introspection: { enabled: true },
        revocation: { enabled: true },
        dPoP: {
            enabled: true,
            nonceSecret: options.dpop_nonces ? randomBytes(32) : undefined,
            requireNonce: () => Boolean(options.dpop_nonces)
        },
        mTLS: {
            enabled: true,
            certificateBoundAccessTokens: true,
            selfSignedTlsClientAuth: true,
            tlsClientAuth: true,
            getCertificate: (ctx) => peerCertificate(ctx),
            certificateAuthorized: (ctx) => ctx.socket.authorized === true,
            certificateSubjectMatches: (ctx, property, expected) =>
                property === 'tls_client_auth_san_dns' &&
                (peerCertificate(ctx)?.subjectAltName ?? '').split(', ').includes(`DNS:${expected}`)
        },
        resourceIndicators: {
            enabled: true,
            defaultResource: async () => undefined,
            useGrantedResource: async () => true,
            getResourceServerInfo: async (_ctx, audience) => resourceServer(audience)
        }
    },
    extraTokenClaims: async (_ctx, token) => (token.kind === 'AccessToken' ? token.extra : undefined),
    renderError: async (ctx, out) => {
        ctx.type = 'json';
        ctx.body = out;
    }
});

/** What oidc-provider wants to know about a resource; a resource that is not configured is refused. */
function resourceServer(audience) {
    const found = resources.find((resource) => resource.audience === audience);
    if (found === undefined) {
        throw new errors.InvalidTarget();
    }
    return {
        audience: found.audience,
        scope: found.scope ?? '',
        accessTokenFormat: found.format,
        accessTokenTTL: found.token_secs,
        jwt: found.format === 'jwt' ? { sign: { alg: 'RS256' } } : undefined
    };
}

function peerCertificate(ctx) {
    const certificate = ctx.socket.getPeerX509Certificate?.();
    return certificate ?? undefined;
}

provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'token') {
        const { grant_type: grant, scope, resource, audience, requested_token_type: requested } = ctx.oidc.params ?? {};
        const error = ctx.body?.error;
        const client = ctx.oidc.client?.clientId;
        tokenCalls.push({ client, grant, scope, resource, audience, requested, status: ctx.status, error });
    }
});
provider.on('server_error', (_ctx, error) => console.error(error));
provider.on('grant.error', (_ctx, error) => console.error(`${error.error}: ${error.error_description} ${error.error_detail ?? ''}`));

addGrants(provider, { issuer, key, resourceServer, trusted: options.trusted ?? [], actors: options.actors });
addLogin(provider);
issuerServer.on('request', provider.callback());

let mtls = null;
if (options.tls) {
    // Certificates are asked for and checked by the provider, not by the handshake: both methods of RFC 8705 work.
    const { key: tlsKey, cert, ca } = options.tls;
    const server = createTlsServer(
        { key: tlsKey, cert, ca: ca ?? cert, requestCert: true, rejectUnauthorized: false },
        provider.callback()
    );
    mtls = `https://localhost:${(await listening(server)).split(':')[1]}`;
}

const { server: resource, report } = protectedResource({ provider, issuer, resources, tokenCalls });
console.log(JSON.stringify({ issuer, mtls, resource: await listening(resource), report: await listening(report) }));

function listening(server) {
    return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', () => {
            const { address, port } = server.address();
            resolve(`${address}:${port}`);
        });
    });
}
