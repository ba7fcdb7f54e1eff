// The events of one session's streams, so that a client that lost a stream can resume it.

const MAX_EVENTS = 1000;

export class EventLog {
    #events = [];
    #next = 1;

    async storeEvent(streamId, message) {
        const id = `${this.#next++}`;
        this.#events.push({ id, streamId, message });
        if (this.#events.length > MAX_EVENTS) this.#events.shift();
        return id;
    }

    async getStreamIdForEventId(id) {
        return this.#events.find((event) => event.id === id)?.streamId;
    }

    async replayEventsAfter(lastId, { send }) {
        const last = this.#events.findIndex((event) => event.id === lastId);
        const streamId = this.#events[last]?.streamId ?? '';
        for (const event of this.#events.slice(last + 1)) {
            const isEmpty = Object.keys(event.message).length === 0;
            if (event.streamId === streamId && !isEmpty) await send(event.id, event.message);
        }
        return streamId;
    }
}
