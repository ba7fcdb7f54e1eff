// Loaded before a server that would listen on every interface: it listens on a free port of the loopback interface
// instead, and prints its address as JSON.

import { Server } from 'node:net';

const { listen } = Server.prototype;

Server.prototype.listen = function onLoopback(_port, ...rest) {
    const ready = rest.find((argument) => typeof argument === 'function');
    return listen.call(this, 0, '127.0.0.1', () => {
        const { address, port } = this.address();
        console.log(JSON.stringify({ mcp: `${address}:${port}` }));
        ready?.();
    });
};
