// The tools of the conformance suite that answer with a question to the user (multi-round-trip requests).

import { acceptedContent, inputRequired } from '@modelcontextprotocol/server';

const text = (value) => ({ content: [{ type: 'text', text: value }] });

const form = (message, name, type = 'string') =>
    inputRequired.elicit({
        message,
        requestedSchema: { type: 'object', properties: { [name]: { type } }, required: [name] }
    });

const sample = (question, maxTokens) =>
    inputRequired.createMessage({
        messages: [{ role: 'user', content: { type: 'text', text: question } }],
        maxTokens
    });

const ask = (inputRequests, requestState) =>
    inputRequired(requestState === undefined ? { inputRequests } : { inputRequests, requestState });

export function addInputTools(server, codec) {
    const tool = (name, description, run) =>
        server.registerTool(`test_input_required_result_${name}`, { description }, async (context) =>
            run(context.mcpReq.inputResponses ?? {}, context)
        );
    tool('elicitation', 'Asks for a name', async (given) => {
        const answer = acceptedContent(given, 'user_name');
        if (typeof answer?.name === 'string') return text(`Hello, ${answer.name}!`);
        return ask({ user_name: form('What is your name?', 'name') });
    });
    tool('sampling', 'Asks the model', async (given) => {
        const answer = given.capital_question?.content?.text;
        if (answer !== undefined) return text(`The model said: ${answer}`);
        return ask({ capital_question: sample('What is the capital of France?', 100) });
    });
    tool('list_roots', 'Asks for the roots', async (given) => {
        const roots = given.client_roots?.roots;
        if (Array.isArray(roots)) return text(`Roots: ${roots.map((root) => root.uri).join(', ')}`);
        return ask({ client_roots: inputRequired.listRoots() });
    });
    tool('request_state', 'Asks, and remembers in the state', async (given, context) => {
        const state = context.mcpReq.requestState();
        if (state?.for === 'request_state' && given.confirm !== undefined) return text('state-ok');
        const minted = await codec.mint({ for: 'request_state' });
        return ask({ confirm: form('Please confirm', 'ok', 'boolean') }, minted);
    });
    tool('tampered_state', 'Asks, and trusts no other state than its own', async (given, context) => {
        const state = context.mcpReq.requestState();
        if (state?.for === 'tampered_state' && given.confirm !== undefined) return text('state-ok');
        const minted = await codec.mint({ for: 'tampered_state' });
        return ask({ confirm: form('Please confirm', 'ok', 'boolean') }, minted);
    });
    tool('multiple_inputs', 'Asks three questions at once', async (given) => {
        const name = acceptedContent(given, 'user_name')?.name;
        if (name !== undefined && given.greeting !== undefined && given.client_roots !== undefined) {
            return text(`${given.greeting.content?.text} ${name}`);
        }
        const questions = {
            user_name: form('What is your name?', 'name'),
            greeting: sample('Generate a greeting', 50),
            client_roots: inputRequired.listRoots()
        };
        return ask(questions, await codec.mint({ for: 'multiple_inputs' }));
    });
    tool('multi_round', 'Asks two questions, one after the other', async (given, context) => {
        const state = context.mcpReq.requestState();
        const color = acceptedContent(given, 'step2')?.color;
        if (state?.round === 2 && color !== undefined) return text(`${state.name} likes ${color}`);
        const name = acceptedContent(given, 'step1')?.name;
        if (state?.round === 1 && name !== undefined) {
            const minted = await codec.mint({ round: 2, name });
            return ask({ step2: form('Step 2: What is your favorite color?', 'color') }, minted);
        }
        return ask({ step1: form('Step 1: What is your name?', 'name') }, await codec.mint({ round: 1 }));
    });
    tool('capabilities', 'Asks only what the client can answer', async (given, context) => {
        if (Object.keys(given).length > 0) return text('Thank you');
        const can = context.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {};
        const questions = {};
        if (can.sampling !== undefined) questions.greeting = sample('Generate a greeting', 50);
        if (can.elicitation !== undefined) questions.user_name = form('What is your name?', 'name');
        return Object.keys(questions).length > 0 ? ask(questions) : text('There is nothing to ask this client');
    });
    // The SDK refuses to ask what the client did not declare.
    const needy = { description: 'Needs a client that can sample' };
    server.registerTool('test_missing_capability', needy, async () => ask({ greeting: sample('Generate a greeting', 50) }));
    const streaming = { description: 'Reports its progress, then asks' };
    server.registerTool('test_streaming_elicitation', streaming, async (context) => {
        const answer = acceptedContent(context.mcpReq.inputResponses, 'user_name');
        if (answer !== undefined) return text(`Hello, ${answer.name}!`);
        return ask({ user_name: form('What is your name?', 'name') });
    });
}
