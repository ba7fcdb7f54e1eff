// Grants beyond the provider's own: token exchange (RFC 8693), also to an identity assertion (ID-JAG), and JWT bearer
// (RFC 7523) with a service's assertion, a user's token (on behalf of) or such an identity assertion.

import { randomUUID } from 'node:crypto';

import { SignJWT, createLocalJWKSet, createRemoteJWKSet, decodeJwt, importJWK, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

const { InvalidGrant, InvalidRequest, InvalidScope, InvalidTarget } = errors;

const TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:';
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const EXCHANGE_PARAMETERS = [
    'subject_token',
    'subject_token_type',
    'actor_token',
    'actor_token_type',
    'requested_token_type',
    'audience',
    'resource',
    'scope'
];

/** Registers both. `trusted` names the issuers whose tokens count, each for one audience. */
export function addGrants(provider, { issuer, key, resourceServer, trusted, actors }) {
    const sources = trusted.map(({ jwks, jwks_uri: uri, ...rest }) => ({
        ...rest,
        keys: jwks ? createLocalJWKSet(jwks) : createRemoteJWKSet(new URL(uri))
    }));
    const used = new Set();

    /** The claims of a JWT by a trusted issuer for the audience registered with it, or for `audience`. */
    async function verified(token, { what, audience, typ }) {
        try {
            const { iss } = decodeJwt(token);
            const source = sources.find((one) => one.issuer === iss);
            if (source === undefined) {
                throw new Error(`issuer ${iss} is not trusted`);
            }
            const options = { issuer: iss, audience: audience ?? source.audience, typ, requiredClaims: ['exp', 'sub'] };
            return (await jwtVerify(token, source.keys, options)).payload;
        } catch (error) {
            throw new InvalidRequest(`${what}: ${error.message}`);
        }
    }

    function target(params) {
        const wanted = params.resource ?? params.audience;
        if (wanted === undefined || Array.isArray(wanted)) {
            throw new InvalidTarget('exactly one resource or audience');
        }
        return resourceServer(wanted);
    }

    async function issue(ctx, { accountId, server, scope, act, issuedTokenType }) {
        const known = server.scope.split(' ').filter(Boolean);
        const wanted = (scope ?? '').split(' ').filter(Boolean);
        const missing = wanted.find((one) => !known.includes(one));
        if (missing !== undefined) {
            throw new InvalidScope('the resource has no such scope', missing);
        }
        const token = new provider.AccessToken({
            accountId,
            client: ctx.oidc.client,
            gty: 'exchange',
            scope: wanted.join(' ') || undefined,
            extra: act ? { act } : undefined
        });
        token.resourceServer = resourceServerOf(server);
        const value = await token.save();
        ctx.body = {
            access_token: value,
            issued_token_type: issuedTokenType,
            token_type: token.tokenType,
            expires_in: token.expiration,
            scope: token.scope
        };
    }

    function resourceServerOf(server) {
        const { ResourceServer } = provider;
        return new ResourceServer(server.audience, server);
    }

    async function exchange(ctx) {
        const { params, client } = ctx.oidc;
        if (!params.subject_token || !params.subject_token_type) {
            throw new InvalidRequest('subject_token and subject_token_type are required');
        }
        if (![`${TOKEN_TYPE}access_token`, `${TOKEN_TYPE}id_token`, `${TOKEN_TYPE}jwt`].includes(params.subject_token_type)) {
            throw new InvalidRequest('the type of the subject token is not supported');
        }
        if (Boolean(params.actor_token) !== Boolean(params.actor_token_type)) {
            throw new InvalidRequest('actor_token and actor_token_type go together');
        }
        const subject = await verified(params.subject_token, { what: 'subject_token' });
        let act;
        if (params.actor_token) {
            const actor = await verified(params.actor_token, { what: 'actor_token' });
            if ((actors && !actors.includes(actor.sub)) || (subject.may_act && subject.may_act.sub !== actor.sub)) {
                throw new InvalidRequest('the actor may not act for the subject');
            }
            act = { sub: actor.sub };
        } else if (subject.may_act) {
            throw new InvalidRequest('the subject token wants an actor');
        }
        switch (params.requested_token_type ?? `${TOKEN_TYPE}access_token`) {
            case `${TOKEN_TYPE}access_token`: {
                const issuedTokenType = `${TOKEN_TYPE}access_token`;
                await issue(ctx, { accountId: subject.sub, server: target(params), scope: params.scope, act, issuedTokenType });
                break;
            }
            case `${TOKEN_TYPE}id-jag`:
                if (!params.audience) {
                    throw new InvalidTarget('the audience is missing');
                }
                ctx.body = {
                    access_token: await assertion(client, subject, params),
                    issued_token_type: `${TOKEN_TYPE}id-jag`,
                    token_type: 'N_A',
                    expires_in: 300,
                    scope: params.scope
                };
                break;
            default:
                throw new InvalidRequest('the requested token type is not supported');
        }
    }

    /** An ID-JAG: the user's identity for one client at one other authorization server. */
    async function assertion(client, subject, { audience, resource, scope }) {
        const claims = { client_id: client.clientId, resource, scope };
        return new SignJWT(claims)
            .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: 'oauth-id-jag+jwt' })
            .setIssuer(issuer)
            .setSubject(subject.sub)
            .setAudience(audience)
            .setIssuedAt()
            .setExpirationTime('5m')
            .setJti(randomUUID())
            .sign(await importJWK(key, key.alg));
    }

    async function bearer(ctx) {
        const { params, client } = ctx.oidc;
        if (!params.assertion) {
            throw new InvalidRequest('the assertion is missing');
        }
        if (params.requested_token_use !== undefined) {
            if (params.requested_token_use !== 'on_behalf_of') {
                throw new InvalidRequest('the use of the token is not known');
            }
            // The user's token was meant for this very client.
            const user = await asGrant(verified(params.assertion, { what: 'assertion' }));
            await issue(ctx, { accountId: user.sub, server: target(params), scope: params.scope });
            return;
        }
        const own = [issuer, `${issuer}/token`];
        if (typeOf(params.assertion) === 'oauth-id-jag+jwt') {
            const options = { what: 'assertion', audience: issuer, typ: 'oauth-id-jag+jwt' };
            const claims = await asGrant(verified(params.assertion, options));
            if (claims.client_id !== client.clientId) {
                throw new InvalidGrant('the assertion is for another client');
            }
            once(claims);
            const allowed = (claims.scope ?? '').split(' ');
            if ((params.scope ?? '').split(' ').some((one) => one && !allowed.includes(one))) {
                throw new InvalidScope('more than the assertion allows');
            }
            const server = target({ resource: claims.resource ?? params.resource });
            await issue(ctx, { accountId: claims.sub, server, scope: params.scope ?? claims.scope });
            return;
        }
        const claims = await asGrant(verified(params.assertion, { what: 'assertion', audience: own }));
        if (claims.exp - (claims.iat ?? claims.exp) > 3600) {
            throw new InvalidGrant('the assertion lives longer than an hour');
        }
        once(claims);
        await issue(ctx, { accountId: claims.sub, server: target(params), scope: params.scope ?? claims.scope });
    }

    function once({ jti }) {
        if (jti === undefined || used.has(jti)) {
            throw new InvalidGrant('the assertion has no jti, or was used before');
        }
        used.add(jti);
    }

    provider.registerGrantType(EXCHANGE, exchange, EXCHANGE_PARAMETERS);
    provider.registerGrantType(BEARER, bearer, ['assertion', 'requested_token_use', 'scope', 'resource']);
}

function typeOf(token) {
    try {
        return JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).typ;
    } catch {
        return undefined;
    }
}

/** RFC 7523, 3.1: what is wrong with an assertion is wrong with the grant. */
async function asGrant(verification) {
    try {
        return await verification;
    } catch (error) {
        throw new InvalidGrant(error.error_description);
    }
}
