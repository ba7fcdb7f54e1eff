// The tools that the conformance suite asks for, but for those that answer with a question.

import { setTimeout as sleep } from 'node:timers/promises';

import { fromJsonSchema } from '@modelcontextprotocol/server';

import { PIXEL, SILENCE } from './media.mjs';

const PAUSE_MS = 50;

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const image = { type: 'image', data: PIXEL, mimeType: 'image/png' };

const RICH_SCHEMA = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    $defs: {
        address: {
            $anchor: 'addressDef',
            type: 'object',
            properties: { street: { type: 'string' }, city: { type: 'string' } }
        }
    },
    properties: {
        name: { type: 'string' },
        address: { $ref: '#/$defs/address' },
        contactMethod: { type: 'string', enum: ['phone', 'email'] },
        phone: { type: 'string' },
        email: { type: 'string' }
    },
    allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
    if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
    then: { required: ['phone'] },
    else: { required: ['email'] },
    additionalProperties: false
};

export function addTools(server, changes) {
    const tool = (name, description, run) => server.registerTool(name, { description }, run);
    tool('test_simple_text', 'Answers with a text', async () => text('This is a simple text response for testing.'));
    tool('test_image_content', 'Answers with a picture', async () => ({ content: [image] }));
    tool('test_audio_content', 'Answers with a sound', async () => ({
        content: [{ type: 'audio', data: SILENCE, mimeType: 'audio/wav' }]
    }));
    tool('test_embedded_resource', 'Answers with a resource', async () => {
        const value = 'This is an embedded resource content.';
        const resource = { uri: 'test://embedded-resource', mimeType: 'text/plain', text: value };
        return { content: [{ type: 'resource', resource }] };
    });
    tool('test_multiple_content_types', 'Answers with a text, a picture and a resource', async () => {
        const value = JSON.stringify({ test: 'data', value: 123 });
        const resource = { uri: 'test://mixed-content-resource', mimeType: 'application/json', text: value };
        const first = { type: 'text', text: 'Multiple content types test:' };
        return { content: [first, image, { type: 'resource', resource }] };
    });
    tool('test_error_handling', 'Fails', async () => {
        throw new Error('This tool intentionally returns an error for testing');
    });
    addStreamingTools(server, tool);
    addAskingTools(server, tool);

    tool('test_trigger_tool_change', 'Says that the list of tools changed', async () => {
        changes.notify.toolsChanged();
        return text('The list of tools changed.');
    });
    tool('test_trigger_prompt_change', 'Says that the list of prompts changed', async () => {
        changes.notify.promptsChanged();
        return text('The list of prompts changed.');
    });
    const rich = { description: 'Tool with JSON Schema 2020-12 features', inputSchema: fromJsonSchema(RICH_SCHEMA) };
    server.registerTool('json_schema_2020_12_tool', rich, async ({ name }) => text(`Hello ${name}`));
    const mirrored = {
        description: 'An argument that travels in a header, too',
        inputSchema: fromJsonSchema({
            type: 'object',
            properties: { region: { type: 'string', 'x-mcp-header': 'Region' } },
            required: ['region']
        })
    };
    server.registerTool('test_mirrored_argument', mirrored, async ({ region }) => text(`The region is ${region}`));
}

function addStreamingTools(server, tool) {
    tool('test_tool_with_logging', 'Logs while it works', async (context) => {
        await context.mcpReq.log('info', 'Tool execution started');
        await sleep(PAUSE_MS);
        await context.mcpReq.log('info', 'Tool processing data');
        await sleep(PAUSE_MS);
        await context.mcpReq.log('info', 'Tool execution completed');
        return text('Tool with logging executed successfully');
    });
    tool('test_logging_tool', 'Logs only where the client wants it', async (context) => {
        await context.mcpReq.log('info', 'This is only for clients that asked for it');
        return text('Logged');
    });
    tool('test_tool_with_progress', 'Reports its progress', async (context) => {
        const progressToken = context.mcpReq._meta?.progressToken;
        for (const progress of [0, 50, 100]) {
            if (progress > 0) await sleep(PAUSE_MS);
            if (progressToken === undefined) continue;
            await context.mcpReq.notify({
                method: 'notifications/progress',
                params: { progressToken, progress, total: 100, message: `Completed step ${progress} of 100` }
            });
        }
        return text('Tool with progress executed successfully');
    });
    tool('test_reconnection', 'Closes its stream before it answers', async (context) => {
        await sleep(PAUSE_MS);
        context.http?.closeSSE?.();
        await sleep(PAUSE_MS);
        return text('Reconnection test completed successfully');
    });
}

// The question goes out on the stream of the call. Otherwise the SDK sends it on the session's own stream, and loses it
// where the client opens that one a moment later.
const related = (context) => ({ relatedRequestId: context.mcpReq.id });

function addAskingTools(server, tool) {
    const withText = (name) => fromJsonSchema({
        type: 'object',
        properties: { [name]: { type: 'string', description: name } },
        required: [name]
    });
    const sampling = { description: 'Asks the model of the client', inputSchema: withText('prompt') };
    server.registerTool('test_sampling', sampling, async ({ prompt }, context) => {
        const messages = [{ role: 'user', content: { type: 'text', text: prompt } }];
        const answer = await context.mcpReq.requestSampling({ messages, maxTokens: 100 }, related(context));
        return text(`LLM response: ${answer.content.type === 'text' ? answer.content.text : answer.content.type}`);
    });
    const eliciting = { description: 'Asks the user of the client', inputSchema: withText('message') };
    server.registerTool('test_elicitation', eliciting, async ({ message }, context) => {
        const requestedSchema = {
            type: 'object',
            properties: {
                username: { type: 'string', description: "User's response" },
                email: { type: 'string', description: "User's email address" }
            },
            required: ['username', 'email']
        };
        const answer = await context.mcpReq.elicitInput({ message, requestedSchema }, related(context));
        return text(`User response: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`);
    });
    const elicited = (answer) =>
        text(`Elicitation completed: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`);
    tool('test_elicitation_sep1034_defaults', 'Asks with defaults', async (context) => {
        const properties = {
            name: { type: 'string', description: 'User name', default: 'John Doe' },
            age: { type: 'integer', description: 'User age', default: 30 },
            score: { type: 'number', description: 'User score', default: 95.5 },
            status: {
                type: 'string',
                description: 'User status',
                enum: ['active', 'inactive', 'pending'],
                default: 'active'
            },
            verified: { type: 'boolean', description: 'Verification status', default: true }
        };
        const requestedSchema = { type: 'object', properties, required: [] };
        const message = 'Please review your data';
        return elicited(await context.mcpReq.elicitInput({ message, requestedSchema }, related(context)));
    });
    tool('test_elicitation_sep1330_enums', 'Asks with every kind of choice', async (context) => {
        const values = ['value1', 'value2', 'value3'];
        const titled = (noun) =>
            ['First', 'Second', 'Third'].map((count, at) => ({ const: values[at], title: `${count} ${noun}` }));
        const options = ['option1', 'option2', 'option3'];
        const properties = {
            untitledSingle: { type: 'string', enum: options },
            titledSingle: { type: 'string', oneOf: titled('Option') },
            legacyEnum: {
                type: 'string',
                enum: ['opt1', 'opt2', 'opt3'],
                enumNames: ['Option One', 'Option Two', 'Option Three']
            },
            untitledMulti: { type: 'array', items: { type: 'string', enum: options } },
            titledMulti: { type: 'array', items: { anyOf: titled('Choice') } }
        };
        const requestedSchema = { type: 'object', properties, required: [] };
        const question = { message: 'Please choose', requestedSchema };
        return elicited(await context.mcpReq.elicitInput(question, related(context)));
    });
}
