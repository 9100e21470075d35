"""Layers beside their authors' code: the same weights and inputs, the same numbers.

All of it ran in float64 on the CPU: what the code calls .float() was read as .double(), JAX with jax_enable_x64. Weights are
`wave` in the order of named_parameters, with k = 1.1, 1.2, ... unless a test says otherwise.

MAMBA: state-spaces/mamba at e9594ce1c732d97440f0332fdc43170a2294dbfa, Mamba(8, d_state=4, dt_rank=3), its slow path without
causal_conv1d and triton, on selective_scan_ref.
JRT, CONV: HazyResearch/prefix-linear-attention at 7490f22bda3e38dc057bcbaffe6bdb09b4d475e6, PrefixLinearAttention(8,
num_heads=2, feature_dim=3, enc_length=5), "default" form, and BaseConv(8, 9, expand_proj=4), which with use_cuda=True was
given causal_conv1d_ref of Dao-AILab/causal-conv1d at 0d2252d161f25f7907bbd05985c08ab98d255874 for the kernel.
LMU: zeyuliu1037/LMUFormer at 5debaddf65a0d39cd09aa17a2e4c34b364e9040e, LMUFFTCell(5, 5, 6, seq_len=11, theta=9).
S5, HIPPO: lindermanlab/S5 at 3c18fdb6b06414da35e77b94b9cd855f6a95ef17, S5SSM(H=5, P=4, zoh, conj_sym) and make_DPLR_HiPPO(8),
with JAX 0.10 and Flax 0.12 (np.DeviceArray read as jax.Array).
S5_RL: luchris429/popjaxrl at 12e5d42be3a6bde81cce4234f8be4e119e4318b6, StackedEncoderModel(n_layers=2, full_glu, no norms).
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.state.jrt_rnn import JRT, quadratic
from loci.state.lmu import LMU
from loci.state.mamba import Mamba
from loci.state.s5 import S5, hippo
from loci.state.s5_rl import S5RL
from loci.state.short_conv import BaseConv
from tests.state.official import DOUBLE, close, differentiate, inputs, matches, wave

torch.set_num_threads(1)

MAMBA = {
    "sum": -1.7907426406273848,
    "first": [0.017403823421720983, 0.017601166839034933, 0.0011419146459203597, -0.0163979710445451,
              -0.01841988710161313, -0.0030104241230092983, 0.015247907779536718, 0.01907661486734624],
    "last": [-0.026564538692934618, 0.021504059268383217, 0.049222618934411405, 0.030360104403788155,
             -0.01723323157571572, -0.04851816186583437, -0.033888670154778054, 0.012810847350902588],
    "gradient": [-0.12600695404531256, 0.020829392796830853, 0.13715063039354033, 0.052545873153959276,
                 -0.10903871135805977, -0.11088132827998921, 0.04971746049558652, 0.1374800531695084],
    "norms": {
        "system.A_log": 0.3149512623864443, "system.skip": 0.24951219736233918, "inward.weight": 7.090858317278506,
        "system.conv.taps": 1.5941315576947088, "system.conv.bias": 2.2194826800884844,
        "system.select.weight": 1.3523673425146867, "system.step_size.weight": 0.6936768768230602,
        "system.step_size.bias": 0.7339987629937853, "outward.weight": 2.032262066737907,
    },
    "h": [0.005345916811439137, -0.019414093672244934, -0.08722150519061889, -0.16085358892872245],
    "h sum": -6.550753740918597,
}  # fmt: skip
JRT_5_OF_9 = {
    "sum": -8.400846915917494,
    "first": [0.029755467851101274, 0.024754803673025023, 0.01840909049002932, 0.011063121794117746,
              0.003116039829160302, -0.005000351750482805, -0.012845049874783881, -0.019991813901912733],
    "last": [0.2617245769532824, 0.2686061518243542, 0.2608930467295198, 0.23900435222064578,
             0.20412938763780844, 0.15816307959922593, 0.10360300141243518, 0.04341366775680472],
    "S": [-0.22001838762009823, -1.3664059703253593, 0.8884393804176903, -0.41307070836638454, -0.005230079361893626,
          -0.0005618814013730673, -0.0007874791054045789, -0.0005618814013730673, -0.005656755092634672,
          0.005004860020078517, -0.0007874791054045789, 0.005004860020078517, -0.0046640245266196916],
    "z sum": 61.00108634399376,
    "two masked": [-0.21831630463475823, -0.23124774865755737, -0.2316143766418154, -0.21939626790418232,
                   -0.19525729177751955, -0.16050903635793198, -0.11703954353789811, -0.06721072249813194],
    "without the two": [-0.4022488403147348, -0.4026674504320981, -0.38120717753866984, -0.33903406274234704,
                        -0.2784395766942551, -0.20271611283201393, -0.11597809561489911, -0.02293842381148032],
}  # fmt: skip
CONV_PLAIN = {
    "sum": -0.35345157235877345,
    "first": [0.5781532649708772, 0.2271309455960511, -0.5654183385591431, -0.27918982852007,
              0.43111232307488045, 0.31479611304218147, -0.2024726137219242, -0.3628302443127568],
    "last": [0.41807765461341273, 0.336561340136534, -0.48645107592264525, -0.44714970404606225,
             0.4766346781952876, 0.4490154266001031, -0.3474765324484836, -0.3895745888699461],
}  # fmt: skip
CONV_FUSED = {
    "sum": 0.5292387918096448,
    "first": [0.6480403030141029, 0.2517893185445036, -0.6535818334837937, -0.23850259586533112,
              0.489118984262231, 0.23111511740712712, -0.19845603794567446, -0.2821262810284988],
    "last": [0.24028274113315268, 0.4799814759601415, -0.4149572526962998, -0.6435601073222703,
             0.5507176241274244, 0.5905165392346265, -0.5264382142625328, -0.3984316917825371],
}  # fmt: skip
THE_LMU = {
    "sum": 44.8060730470928,
    "first": [0.0, 0.19624469228496325, 0.25841323471900923, 0.0, 0.0],
    "last": [1.262991744426472, 0.8029883760512703, 0.0, 0.0, 1.4082171540931858],
    "gradient": [0.09371111258316453, -0.019224264286324705, -0.02935708453818979, -0.011044511890026032,
                 -0.06440193132938363],
    "norms": {"inward.weight": 1.9617327375734905, "inward.bias": 0.9195116558775207,
              "outward.weight": 3.3221224821587425, "outward.bias": 3.2432543105395206},
    "m": [0.6462500811340024, 0.050695456633760516, 0.05804251777100208, 0.43533587726695555, -0.6046317211308028,
          0.18499291597794018],
    "A[1]": [0.3002609577832925, 0.6659944030196254, -0.2576160149917845, -0.17224974556179432, -0.09221850005546131,
             -0.0031423417242098166],
    "B": [0.10962921401161937, -0.30026095778329254, 0.3794228740726866, -0.35104884509900297, 0.2251561224241823,
          0.014844970008642667],
}  # fmt: skip
HIPPO = {
    "imag": [-19.857410370970577, -5.354208515030872, -1.9577941509028045, -0.42748871228586144],
    "first, by itself": [(0.02894976131945503 - 0.0029213204396369404j), 0.050269862691098705,
                         (0.06327795637785927 + 0.012868851309413565j), (0.06654205608199532 + 0.03638124743921897j)],
    "second, absolute": [0.17144282224579588, 0.287182615039957, 0.34886963728973597, 0.3813241066101404,
                         0.39544761193724837, 0.39835846797430885, 0.3947252096375456, 0.38747791201228293],
}  # fmt: skip
THE_S5 = {
    "sum": -0.02961207403802521,
    "first": [0.31835941575854737, -0.028908851929290352, -0.45893252226531195, 0.036608854411834105,
              -0.09362639924004859],
    "last": [-0.23701742828177075, 0.001513080283806631, 0.4820264041722668, 0.011880683046312165, 0.033478758453610966],
    "gradient": [0.4059381715825946, -0.23587239118406525, 0.43782705736510963, -0.1465177980329626, 0.13755740856407866],
    "norms": {"B": 1.2198228073776207, "C": 0.23503285981755415, "skip": 0.49711277313807134,
              "Lambda": (0.04793891187950959**2 + 0.04202231526631254**2) ** 0.5, "log_step": 0.05870944670547505},
}  # fmt: skip
S5_CLIPPED = {
    "sum": -0.1419060917868264,
    "first": [0.3230775566802927, -0.05438322003947228, -0.47399350444520977, 0.05596831724920241,
              -0.07070528682634263],
    "last": [-0.42179447504026535, -0.03604489867932609, 0.651554546121325, 0.11826873674907373, -0.09285479878770538],
    "gradient": [0.9340804405989411, -0.6835844034107577, 0.6769635643992302, -0.10863255260121597, -0.16650597992821614],
    "norms": {"B": 1.7556827998098903, "C": 0.36125549365641535, "skip": 0.49711277313807134,
              "Lambda": (0.2049450220171941**2 + 0.035434607547968976**2) ** 0.5, "log_step": 0.5037700058057296},
}  # fmt: skip
S5_RL = {
    "sum": 13.465149242398693,
    "first": [1.6801236615073973, 0.7046868776085818, 0.5296832753415416, 1.011620658246892, -0.44686235115439404],
    "last": [-0.14372352883230094, -0.9859647595346996, -1.2968167243763093, -0.17460599352702685, 0.4908475723616095],
    "gradient": [0.5509232318913321, 0.21766145551187646, -0.2929054321549559, -0.5541578548986117, 0.15265891230947057],
    "x": [(-0.04787998448898859 + 0.007710782051146239j), (0.011165426999512833 + 0.005926078766713643j),
          (-0.02828659368309512 - 0.010296491950049409j), (-0.01643940952094211 + 0.08989876619406145j)],
}  # fmt: skip


def norms(layer, official):
    for name, norm in official["norms"].items():
        close(layer.get_parameter(name).grad.norm(), norm)


def test_mamba_is_the_authors_in_outputs_state_and_gradients():
    mixer = Mamba(8, N=4, K=4, rank=3, chunk=3).to(DOUBLE)
    with torch.no_grad():
        system = mixer.system
        system.A_log.copy_(wave(16, 4, k=1.1))
        system.skip.copy_(wave(16, k=1.2))
        mixer.inward.weight.copy_(wave(32, 8, k=1.3))
        system.conv.taps.copy_(wave(16, 4, k=1.4).T)
        system.conv.bias.copy_(wave(16, k=1.5))
        system.select.weight.copy_(wave(11, 16, k=1.6))
        system.step_size.weight.copy_(wave(16, 3, k=1.7))
        system.step_size.bias.copy_(wave(16, k=1.8))
        mixer.outward.weight.copy_(wave(8, 16, k=1.9))
    x = inputs(2, 7, 8)
    y, (_, h) = mixer(x)
    matches(y, MAMBA)
    close(h[0, 0].detach(), MAMBA["h"])
    close(h.detach().sum(), MAMBA["h sum"])
    matches(mixer.scan_by_steps(x, mixer.initial_state(2))[0], MAMBA)
    differentiate(y)
    close(x.grad[0, 0], MAMBA["gradient"])
    norms(mixer, MAMBA)


def prefix_reader():
    mixer = JRT(8, heads=2, feature=3, chunk=3).to(DOUBLE)
    maps = [mixer.q, mixer.k, mixer.v, mixer.k_e, mixer.v_e, mixer.out]
    for at, to in enumerate(maps):
        to.weight.copy_(wave(*to.weight.shape, k=1.1 + at / 10))
    return mixer


@torch.no_grad()
def test_jrt_reads_a_prefix_and_goes_on_as_the_authors():
    mixer, x = prefix_reader(), inputs(2, 9, 8)
    read, state = mixer.prefill(x[:, :5])
    for go_on in (mixer.scan, mixer.scan_by_steps):
        said, (S, z) = go_on(x[:, 5:], state)
        matches(torch.cat([read, said], 1), JRT_5_OF_9)
        close(S[0, 1, :, 2], JRT_5_OF_9["S"])
        close(z.sum(), JRT_5_OF_9["z sum"])


@torch.no_grad()
def test_jrt_leaves_out_what_is_padded_where_the_authors_mask_keys_alone():
    mixer, row = prefix_reader(), inputs(2, 9, 8)[1:, :5]
    close(mixer.prefill(row[:, 2:])[0][0, 0], JRT_5_OF_9["without the two"])
    padded = torch.cat([row[:, 2:], row[:, :2]], 1)
    close(mixer.prefill(padded, lengths=torch.tensor([3]))[0][0, 0], JRT_5_OF_9["without the two"])
    q, k, v, k_e, v_e = mixer._heads(row, mixer.q, mixer.k, mixer.v, mixer.k_e, mixer.v_e)
    k[:, :, :2] = k_e[:, :, :2] = 0  # but phi(0) = [1, 0, ...]: both moments weigh 1 in every sum
    close(mixer._out(quadratic(q, k, v, k_e, v_e), row)[0, 2], JRT_5_OF_9["two masked"])


@torch.no_grad()
@pytest.mark.parametrize(("bias", "official"), [(0, CONV_PLAIN), (1, CONV_FUSED)])
def test_a_short_convolution_is_the_authors(bias, official):
    mixer = BaseConv(8, expand=4, width=3).to(DOUBLE)
    mixer.inward.weight.copy_(wave(32, 8, k=1.1))
    mixer.inward.bias.copy_(wave(32, k=1.2))
    mixer.out.weight.copy_(wave(8, 16, k=1.3))
    mixer.out.bias.copy_(wave(8, k=1.4))
    mixer.conv.taps.copy_(wave(16, 3, k=1.5).T)
    mixer.conv.bias.copy_(bias * wave(16, k=1.6))
    x = inputs(2, 9, 8)
    matches(mixer(x)[0], official)
    matches(mixer.scan_by_steps(x, mixer.initial_state(2))[0], official)


def test_the_legendre_memory_is_the_authors_by_fft_and_by_steps():
    mixer = LMU(5, 6, theta=9.0).to(DOUBLE)
    with torch.no_grad():
        for at, param in enumerate(mixer.parameters()):
            param.copy_(wave(*param.shape, k=1.1 + at / 10))
    close(mixer.memory.A[1], THE_LMU["A[1]"])
    close(mixer.memory.B, THE_LMU["B"])
    x = inputs(2, 11, 5)
    y, (m,) = mixer(x)
    for out, (last,) in ((y, (m,)), mixer.scan_by_steps(x, mixer.initial_state(2))):
        matches(out, THE_LMU)
        close(last[1].detach(), THE_LMU["m"])
    differentiate(y)
    close(x.grad[0, 0], THE_LMU["gradient"])
    norms(mixer, THE_LMU)


def test_hippo_is_the_authors():
    Lambda, V = hippo(8)
    close(Lambda.real, [-0.5] * 4)
    close(Lambda.imag, HIPPO["imag"])
    close(V[:, 1].abs(), HIPPO["second, absolute"])  # an eigenvector is known up to its phase
    close(
        torch.view_as_real(V[1, 0] * V[:4, 0].conj()),
        torch.view_as_real(torch.tensor(HIPPO["first, by itself"], dtype=torch.complex128)),
    )


def weigh(system, real, *, shift=0.0):
    """`wave` for everything but the real parts of the eigenvalues."""
    with torch.no_grad():
        system.Lambda.copy_(torch.stack([real, wave(4, k=1.2 + shift, scale=3.0)], -1))
        system.B.copy_(wave(4, 5, 2, k=1.3 + shift))
        system.C.copy_(wave(5, 4, 2, k=1.4 + shift))
        system.skip.copy_(wave(5, k=1.5 + shift))
        system.log_step.copy_(wave(4, k=1.6 + shift) - 1)


@pytest.mark.parametrize(
    ("ceiling", "real", "official"),
    [(None, -1 - wave(4, k=1.1), THE_S5), (-1e-4, wave(4, k=1.1, scale=1.0), S5_CLIPPED)],
)
def test_s5_is_the_authors_with_eigenvalues_free_or_clipped(ceiling, real, official):
    mixer, x = S5(5, 8, ceiling=ceiling).to(DOUBLE), inputs(2, 9, 5)
    weigh(mixer, real)
    y, _ = mixer(x)
    matches(y, official)
    matches(mixer.scan_by_steps(x, mixer.initial_state(2))[0], official)
    differentiate(y)
    close(x.grad[0, 0], official["gradient"])
    norms(mixer, official)


def test_s5_for_agents_is_the_authors_with_resets_and_a_carried_state():
    memory, x = S5RL(5, 8, L=2).to(DOUBLE), inputs(2, 9, 5)
    for at, layer in enumerate(memory.layers):
        weigh(layer.system, -1 - wave(4, k=1.1 + at / 100), shift=at / 100)
        with torch.no_grad():
            for param, k in zip(
                [*layer.value.parameters(), *layer.gate.parameters()], (1.7, 1.8, 1.9, 2.0), strict=True
            ):
                param.copy_(wave(*param.shape, k=k + at / 100))
    state = tuple(torch.stack([wave(2, 4, k=1.8 + at), wave(2, 4, k=1.9 + at)], -1) for at in range(2))
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 4] = reset[1, 0] = reset[1, 6] = reset[1, 7] = True
    y, (_, last) = memory(x, state, reset=reset)
    matches(y, S5_RL)
    close(last[1].detach(), torch.view_as_real(torch.tensor(S5_RL["x"], dtype=torch.complex128)))
    differentiate(y)
    close(x.grad[0, 0], S5_RL["gradient"])
