// A device with Eclipse Californium's OSCORE: device.groovy <secret> <salt> <own id> <gateway's id>, all in hex, then
//   post <uri> [<path> <body>]...   one request after the other, each answer on a line
//   serve <port> <body>             what it answers to every protected GET of /reading; each request on a line
import org.eclipse.californium.core.*
import org.eclipse.californium.core.coap.*
import org.eclipse.californium.core.config.CoapConfig
import org.eclipse.californium.core.network.CoapEndpoint
import org.eclipse.californium.core.server.resources.CoapExchange
import org.eclipse.californium.cose.AlgorithmID
import org.eclipse.californium.elements.config.*
import org.eclipse.californium.elements.util.StringUtil
import org.eclipse.californium.oscore.*

ECHO = 252  // RFC 9175

CoapConfig.register()
UdpConfig.register()
Configuration.createStandardWithoutFile()

def (secret, salt, ours, theirs) = args[0..3].collect { StringUtil.hex2ByteArray(it) }
def contexts = new HashMapCtxDB()
OSCoreCoapStackFactory.useAsDefault(contexts)

def context = { boolean client ->
    new OSCoreCtx(secret, client, AlgorithmID.AES_CCM_16_64_128, ours, theirs, AlgorithmID.HKDF_HMAC_SHA_256, 32, salt, null, 4096)
}

if (args[4] == "post") {
    def uri = args[5]
    contexts.addContext(uri, context(true))
    def ask = { String path, String body, List<Option> options ->
        def request = new Request(CoAP.Code.POST)
        request.options.oscore = new byte[0]
        options.each { request.options.addOption(it) }
        request.setPayload(body)
        new CoapClient("${uri}/${path}").advanced(request)
    }
    args.drop(6).toList().collate(2).each { path, body ->
        def answer = ask(path, body, [])
        def echo = answer?.options?.others?.findAll { it.number == ECHO }
        if (echo) {
            println("challenged")
            answer = ask(path, body, echo)
        }
        println(answer == null ? "nothing" : "${answer.code} ${answer.options.hasOscore() ? 'protected' : 'plain'}")
    }
} else {
    contexts.addContext(context(false))
    def server = new CoapServer(args[5] as int)
    server.add(new OSCoreResource("reading", true) {
        void handleGET(CoapExchange exchange) {
            println("asked")
            exchange.respond(CoAP.ResponseCode.CONTENT, args[6], MediaTypeRegistry.APPLICATION_JSON)
        }
    })
    server.start()
    println("serving")
    System.in.read()
}
System.exit(0)
