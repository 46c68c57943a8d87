import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { Webhook } from 'standardwebhooks';

type Change = { id: string; type: string; customerId: string; externalCustomerId: string | null; version: number };
const webhook = new Webhook(process.env.VIVAMO_WEBHOOK_SECRET!);
const processed = new Set<string>(); // in your service: a table

const server = createServer(async (request, response) => {
  try {
    const delivery = webhook.verify(await text(request), request.headers as Record<string, string>);
    for (const change of (delivery as { data: { changes: Change[] } }).data.changes) {
      if (processed.has(change.id)) continue;
      console.log(change.type, change.customerId, change.externalCustomerId);
      processed.add(change.id);
    }
    response.writeHead(204).end();
  } catch {
    response.writeHead(400).end();
  }
});
server.listen(Number(process.env.PORT ?? 9000), '127.0.0.1');
