// Resources that accept an access token only if it is valid for them, and a report of what they received.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

import { EmbeddedJWK, calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } from 'jose';

import { text } from './form_body.mjs';

/** The servers of the resources (/NAME and below) and of the report. */
export function protectedResource({ provider, issuer, resources, tokenCalls }) {
    const keys = createRemoteJWKSet(new URL('/jwks', issuer));
    const proofs = new Set();
    let received = [];

    const server = createServer(async (request, response) => {
        const body = await text(request);
        const headers = request.headers;
        const record = { method: request.method, url: request.url, headers, raw: request.rawHeaders, body };
        received.push(record);
        const name = request.url.split(/[/?]/)[1];
        const resource = resources.find((one) => one.name === name);
        try {
            if (resource === undefined) {
                throw new Error('no such resource');
            }
            const { token, claims } = await check(resource, request);
            record.claims = claims;
            response.setHeader('content-type', 'application/json');
            if (!/[?&]echo=1(&|$)/.test(request.url)) {
                response.end(JSON.stringify({ resource: name, claims }));
                return;
            }
            // It gives away what it got, in a header and in the body: the filter has to find it.
            response.setHeader('x-received-authorization', headers.authorization ?? '');
            response.end(JSON.stringify({ resource: name, claims, token, authorization: headers.authorization }));
        } catch (error) {
            record.refused = error.message;
            const scheme = resource?.dpop ? 'DPoP' : 'Bearer';
            response.writeHead(401, {
                'content-type': 'application/json',
                'www-authenticate': `${scheme} error="invalid_token"`
            });
            response.end(JSON.stringify({ refused: error.message }));
        }
    });

    async function check(resource, request) {
        const authorization = request.headers.authorization ?? '';
        const fromQuery = new URL(request.url, 'http://resource').searchParams.get('access_token');
        const [scheme, token] = authorization ? authorization.split(' ') : ['Bearer', fromQuery];
        if (!token) {
            throw new Error('no token');
        }
        const claims = await claimsOf(resource, token);
        if (claims.cnf?.jkt) {
            if (scheme !== 'DPoP') {
                throw new Error('a DPoP-bound token came as a bearer token');
            }
            await checkProof(request, token, claims.cnf.jkt);
        } else if (scheme !== 'Bearer') {
            throw new Error(`the scheme is ${scheme}`);
        }
        return { token, claims };
    }

    async function claimsOf(resource, token) {
        if (resource.format === 'jwt') {
            const options = { issuer, audience: resource.audience, typ: 'at+jwt' };
            return (await jwtVerify(token, keys, options)).payload;
        }
        const found = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
        if (!found?.isValid || (found.aud ?? resource.audience) !== resource.audience) {
            throw new Error('the token is not valid here');
        }
        const cnf = found.jkt ? { jkt: found.jkt } : undefined;
        return { sub: found.accountId, client_id: found.clientId, scope: found.scope, aud: found.aud, cnf };
    }

    /** RFC 9449, 4.3 and 7.1. */
    async function checkProof(request, token, thumbprint) {
        const options = { typ: 'dpop+jwt', algorithms: ['ES256'], maxTokenAge: 60 };
        const { payload, protectedHeader } = await jwtVerify(request.headers.dpop ?? '', EmbeddedJWK, options);
        const target = new URL(request.url, `${request.headers['x-forwarded-proto'] ?? 'http'}://${request.headers.host}`);
        if (payload.htm !== request.method || payload.htu !== target.origin + target.pathname) {
            throw new Error(`the proof is for ${payload.htm} ${payload.htu}, not ${request.method} ${target}`);
        }
        if (payload.ath !== createHash('sha256').update(token).digest('base64url')) {
            throw new Error('the proof is for another token');
        }
        if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== thumbprint) {
            throw new Error('the proof is by another key');
        }
        if (proofs.has(payload.jti)) {
            throw new Error('the proof was used before');
        }
        proofs.add(payload.jti);
    }

    const report = createServer(async (request, response) => {
        const answer = await reported(request, new URL(request.url, 'http://report'));
        response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' });
        response.end(JSON.stringify(answer ?? null));
    });

    async function reported(request, url) {
        const argument = (name) => url.searchParams.get(name) ?? undefined;
        switch (url.pathname) {
            case '/received':
                return received;
            case '/token_calls':
                return tokenCalls;
            case '/reset':
                received = [];
                tokenCalls.length = 0;
                return {};
            case '/seed_refresh_token':
                return seed(argument('client'), argument('account'), argument('scope') ?? 'openid', argument('resource'));
            case '/refresh_token': {
                // Whether it is the live one of its grant.
                const found = await provider.RefreshToken.find(await text(request));
                return { live: Boolean(found?.isValid), consumed: Boolean(found?.consumed) };
            }
            case '/revoke': {
                const value = await text(request);
                const token =
                    (await provider.RefreshToken.find(value, { ignoreExpiration: true })) ??
                    (await provider.ClientCredentials.find(value));
                await token?.destroy();
                return { revoked: token !== undefined };
            }
            default:
                return undefined;
        }
    }

    /** A grant as the authorization code flow would have left it, without a browser. */
    async function seed(clientId, accountId, scope, resource) {
        const client = await provider.Client.find(clientId);
        const grant = new provider.Grant({ accountId, clientId });
        grant.addOIDCScope(scope);
        if (resource !== undefined) {
            grant.addResourceScope(resource, scope);
        }
        const grantId = await grant.save();
        const gty = 'authorization_code';
        const token = new provider.RefreshToken({ accountId, client, grantId, scope, gty, resource });
        return { refresh_token: await token.save() };
    }

    return { server, report };
}
