// A market data API as many are: the key travels in the query as `apiKey`, and answers repeat it in the address of the next
// page. It stands for a server of somebody else, outside the company.

import { createServer } from 'node:http';

const PRICES = { ACME: 41.5, GLOBEX: 17.25, INITECH: 3.75 };

// By client, as the provider issued them.
const keys = new Set((process.env.PRICE_KEYS ?? '').split(','));
let received = 0;

const listener = createServer((request, response) => {
    const url = new URL(request.url, 'http://prices.example');
    const json = (status, body) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/received') return json(200, { received });
    received += 1;
    const apiKey = url.searchParams.get('apiKey') ?? '';
    if (!keys.has(apiKey)) return json(401, { status: 'ERROR', error: 'unknown apiKey' });
    const symbol = url.searchParams.get('symbol');
    if (url.pathname !== '/v1/last' || !(symbol in PRICES)) return json(404, { status: 'NOT_FOUND' });
    json(200, { status: 'OK', symbol, price: PRICES[symbol], next_url: `${url}` });
});
listener.listen(0, '127.0.0.1', () => {
    const { address, port } = listener.address();
    console.log(JSON.stringify({ mcp: `${address}:${port}` }));
});
