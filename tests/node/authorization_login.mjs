// The form of the authorization server: whoever types a name is that person, and agrees to all that is asked, or declines.

import { urlencoded } from './form_body.mjs';

/** Serves /interaction/UID: GET shows the form; POST with `account` logs in and consents, with `decline` declines. */
export function addLogin(provider) {
    provider.use(async (ctx, next) => {
        const uid = /^\/interaction\/([^/]+)$/.exec(ctx.path)?.[1];
        if (uid === undefined) {
            return next();
        }
        const { params, prompt } = await provider.interactionDetails(ctx.req, ctx.res);
        if (ctx.method === 'GET') {
            ctx.type = 'html';
            ctx.body = `<!doctype html><title>Sign in</title>
<form method="post" action="/interaction/${uid}" autocomplete="off">
<p>The client <code id="client">${escape(params.client_id)}</code> asks for <code id="scope">${escape(params.scope ?? '')}</code>.</p>
<label>Account <input name="account" required></label>
<button name="allow" value="yes">Allow</button>
<button name="decline" value="yes" formnovalidate>Decline</button>
</form><!-- ${escape(prompt.name)} -->`;
            return;
        }
        const form = await urlencoded(ctx.req);
        if (form.get('decline')) {
            const result = { error: 'access_denied', error_description: 'the user declined' };
            await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
            ctx.respond = false;
            return;
        }
        const accountId = form.get('account');
        const grant = new provider.Grant({ accountId, clientId: params.client_id });
        grant.addOIDCScope(params.scope ?? 'openid');
        for (const resource of [params.resource ?? []].flat()) {
            grant.addResourceScope(resource, params.scope ?? '');
        }
        const result = { login: { accountId }, consent: { grantId: await grant.save() } };
        await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
        ctx.respond = false;
    });
}

function escape(text) {
    return String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
