// A linear layer on MX blocks, y = W x + c, round two units of mxforge.
//
// x comes as BLOCKS beats of 32 BF16 values, and is quantized to MXFP8 on its way into a memory. Then each row of W, MXFP8
// too, goes from a ROM through the dot product with x: ROWS results in FP32. Vectors follow one another; while one is
// multiplied, the quantizer takes as much of the next as it has room for.
//
// ROWS and BLOCKS are 2 or more.
module mx_linear #(
  parameter ROWS = 16,
  parameter BLOCKS = 4,
  parameter WEIGHTS = "weights.hex",  // one block a line, ROWS * BLOCKS of them: {elements, scale}
  parameter BIAS = "bias.hex"         // FP32 bits, one c a line
) (
  input  wire         clk,
  input  wire         rst,
  input  wire [511:0] x_payload,      // value k of the block at [16*k +: 16]
  input  wire         x_valid,
  output wire         x_ready,
  output wire [31:0]  y_payload,
  output wire         y_valid,
  input  wire         y_ready
);
  localparam BLOCK_WIDTH = 264;       // as x_quantizer.v says of o__payload: scale [7:0], elements [263:8]
  localparam LAST_BLOCK = BLOCKS - 1;
  localparam LAST_ROW = ROWS - 1;

  reg [BLOCK_WIDTH-1:0] weights [0:ROWS*BLOCKS-1];
  reg [BLOCK_WIDTH-1:0] x_blocks [0:BLOCKS-1];
  reg [31:0] bias [0:ROWS-1];
  initial begin
    $readmemh(WEIGHTS, weights);
    $readmemh(BIAS, bias);
  end

  reg is_loading;                     // x goes into its memory; otherwise it is multiplied
  reg [$clog2(BLOCKS)-1:0] block;
  reg [$clog2(ROWS)-1:0] row;
  reg [$clog2(ROWS*BLOCKS)-1:0] address;

  wire [BLOCK_WIDTH-1:0] quantized;
  wire quantized_valid;
  x_quantizer u_x_quantizer (
    .clk(clk),
    .rst(rst),
    .i__payload(x_payload),
    .i__valid(x_valid),
    .i__ready(x_ready),
    .o__payload(quantized),
    .o__valid(quantized_valid),
    .o__ready(is_loading)
  );

  // What was read waits here for the dot product to take it.
  reg [BLOCK_WIDTH-1:0] w_block, x_block;
  reg [31:0] c;
  reg first, last, is_read;
  wire dot_ready;
  wire reads = ~is_loading & (~is_read | dot_ready);

  wire is_last_block = block == LAST_BLOCK[$clog2(BLOCKS)-1:0];
  wire is_last_row = row == LAST_ROW[$clog2(ROWS)-1:0];
  wire loads = is_loading & quantized_valid;

  always @(posedge clk) begin
    if (loads)
      x_blocks[block] <= quantized;
    if (reads) begin
      w_block <= weights[address];
      x_block <= x_blocks[block];
      c <= bias[row];
      first <= block == 0;
      last <= is_last_block;
    end
    if (loads | reads)
      block <= is_last_block ? 0 : block + 1'b1;
    if (reads) begin
      address <= is_last_row & is_last_block ? 0 : address + 1'b1;
      if (is_last_block)
        row <= is_last_row ? 0 : row + 1'b1;
    end
    if (loads & is_last_block)
      is_loading <= 1'b0;
    if (reads & is_last_block & is_last_row)
      is_loading <= 1'b1;
    is_read <= reads | (is_read & ~dot_ready);
    if (rst) begin
      is_loading <= 1'b1;
      is_read <= 1'b0;
      block <= 0;
      row <= 0;
      address <= 0;
    end
  end

  // Fields from the most significant down: b_elements and b_scale are x_block, a_elements and a_scale w_block.
  row_dot u_row_dot (
    .clk(clk),
    .rst(rst),
    .i__payload({c, x_block, w_block, last, first}),
    .i__valid(is_read),
    .i__ready(dot_ready),
    .o__payload(y_payload),
    .o__valid(y_valid),
    .o__ready(y_ready)
  );
endmodule
