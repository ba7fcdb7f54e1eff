// The prompts that the conformance suite asks for.

import { acceptedContent, fromJsonSchema, inputRequired } from '@modelcontextprotocol/server';

import { PIXEL } from './media.mjs';

const user = (content) => ({ role: 'user', content });
const says = (text) => user({ type: 'text', text });

function texts(...names) {
    const properties = Object.fromEntries(names.map((name) => [name, { type: 'string', description: name }]));
    return fromJsonSchema({ type: 'object', properties, required: names });
}

export function addPrompts(server) {
    server.registerPrompt('test_simple_prompt', { description: 'A simple prompt' }, async () => ({
        messages: [says('This is a simple prompt for testing.')]
    }));
    const two = { description: 'A prompt with two arguments', argsSchema: texts('arg1', 'arg2') };
    server.registerPrompt('test_prompt_with_arguments', two, async ({ arg1, arg2 }) => ({
        messages: [says(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)]
    }));
    const embedding = { description: 'A prompt with a resource', argsSchema: texts('resourceUri') };
    server.registerPrompt('test_prompt_with_embedded_resource', embedding, async ({ resourceUri }) => {
        const resource = { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' };
        return { messages: [user({ type: 'resource', resource }), says('Please process the embedded resource above.')] };
    });
    server.registerPrompt('test_prompt_with_image', { description: 'A prompt with a picture' }, async () => {
        const image = { type: 'image', data: PIXEL, mimeType: 'image/png' };
        return { messages: [user(image), says('Please analyze the image above.')] };
    });
    const asking = { description: 'A prompt that asks first' };
    server.registerPrompt('test_input_required_result_prompt', asking, async (context) => {
        const given = acceptedContent(context.mcpReq.inputResponses, 'user_context');
        if (given !== undefined) return { messages: [says(`The context is ${given.context}.`)] };
        const requestedSchema = {
            type: 'object',
            properties: { context: { type: 'string' } },
            required: ['context']
        };
        const message = 'What context should the prompt use?';
        return inputRequired({ inputRequests: { user_context: inputRequired.elicit({ message, requestedSchema }) } });
    });
}
